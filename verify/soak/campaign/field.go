package campaign

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/verify/soak/history"
	"github.com/idempotent-go/idempotent/verify/soak/load"
)

// A field is one topology of the campaign: its servers, the proxies before them, and its workers.
type field struct {
	*campaign
	name    string
	servers servers
	posts   []*post
	roles   *roles // nil where there are no replicas
}

// servers are those of one topology.
type servers interface {
	// addrs and master are what a worker's client is made of.
	addrs() []string
	master() string
	// data are the addresses of all servers that may hold data, alive or not.
	data() []string
	// masters are the addresses of those that hold data now.
	masters(ctx context.Context) ([]string, error)
	// faults are those of the servers. One at a time is injected.
	faults() []fault
	// settled returns when everything is as it was.
	settled(ctx context.Context) error
	// acks is how many replicas have to have what is acknowledged.
	acks() int
	close()
}

func launch(name string, f *field) (servers, error) {
	switch name {
	case "single":
		return launchSingle(f)
	case "sentinel":
		return launchSentinel(f)
	case "cluster":
		return launchCluster(f)
	}
	return nil, fmt.Errorf("topology is %q; allowed: %v", name, Topologies)
}

// A fault is injected and healed by one call, which holds it for a while in between.
type fault struct {
	name   string
	inject func(ctx context.Context, r *rand.Rand) error
	// harm is in the place of inject for what concerns one worker alone.
	harm func(ctx context.Context, r *rand.Rand, p *post) error
	// takes is how long it may take. Near the end of a campaign it does not begin any more.
	takes time.Duration
}

// play is the campaign on this field, from its first worker to its audit.
func (f *field) play(ctx context.Context) error {
	for i := range workers {
		p, err := f.newPost(fmt.Sprintf("%s/%d", f.name, i), i)
		if err != nil {
			return err
		}
		f.posts = append(f.posts, p)
	}
	for _, p := range f.posts {
		if err := p.hire(); err != nil {
			return err
		}
	}
	if masters, err := f.servers.masters(ctx); err != nil {
		return err
	} else if len(masters) < len(f.servers.data()) {
		f.roles = newRoles(f, len(masters))
		defer f.roles.close()
	}
	f.harm(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	return f.windUp(ctx)
}

// harm injects faults, for as long as the campaign is to last, in three lanes at once: one of
// processes, one of the network, one of servers.
func (f *field) harm(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, f.Duration)
	defer cancel()
	var lanes sync.WaitGroup
	lanes.Go(func() { f.lane(limited, "processes", processFaults()) })
	lanes.Go(func() { f.lane(limited, "network", networkFaults()) })
	lanes.Go(func() { f.lane(limited, "servers", f.servers.faults()) })
	lanes.Wait()
}

// lane deals the faults like cards: each once, in an order of the seed's, and then again.
func (f *field) lane(ctx context.Context, name string, faults []fault) {
	r := f.random(f.name + " " + name)
	for {
		for _, i := range r.Perm(len(faults)) {
			// What a fault draws must not change which ones follow.
			own := rand.New(rand.NewPCG(r.Uint64(), 0)) //nolint:gosec // nothing is secret here
			if !hold(ctx, max(upTo(own, 2*lease), f.calm())) {
				return
			}
			if end, limited := ctx.Deadline(); limited && time.Until(end) < faults[i].takes {
				continue
			}
			f.inject(ctx, faults[i], own)
		}
	}
}

// Faults begin in the first part of each cycle only. In the rest, clients find their servers again,
// and it shows whether a call waits for nothing, or fails without a reason.
const (
	cycle  = 20 * time.Second
	harmed = 13 * time.Second
)

// calm is how long no fault is to begin.
func (f *field) calm() time.Duration {
	if at := time.Since(f.began) % cycle; at > harmed {
		return cycle - at
	}
	return 0
}

func (f *field) inject(ctx context.Context, x fault, r *rand.Rand) {
	e := history.Event{Kind: history.FaultOn, Topology: f.name, Fault: x.name}
	inject := x.inject
	if x.harm != nil {
		p := f.posts[r.IntN(len(f.posts))]
		e.Proc = p.name
		inject = func(ctx context.Context, r *rand.Rand) error { return x.harm(ctx, r, p) }
	}
	f.log.Append(e)
	if err := inject(ctx, r); err != nil {
		failed := e
		failed.Kind, failed.Text = history.FaultFail, err.Error()
		f.log.Append(failed)
	}
	e.Kind = history.FaultOff
	f.log.Append(e)
}

// hold lets time pass, and reports false when the campaign's is over.
func hold(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func upTo(r *rand.Rand, d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }

func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + upTo(r, most-least)
}

// windUp lets the workers finish, and looks at what they leave: while they are idle, when they
// have gone, and in Redis.
func (f *field) windUp(ctx context.Context) error {
	if err := f.servers.settled(ctx); err != nil {
		return err
	}
	for _, p := range f.posts {
		p.say(load.SayStop)
	}
	f.idle(ctx)
	f.idleConnections(ctx)
	for _, p := range f.posts {
		p.say(load.SayClose)
	}
	for _, p := range f.posts {
		p.dismiss(ctx)
	}
	f.goneConnections(ctx)
	f.expiries(ctx)
	return f.audit(ctx)
}

// idle waits until no worker has a call under way.
func (f *field) idle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, p := range f.posts {
		if f.heard.wait(ctx, p.worker, history.Idle) != nil {
			f.leftover(p.worker, "a call is still under way long after the last one was made")
		}
	}
}

func (f *field) leftover(proc, format string, args ...any) {
	f.log.Append(history.Event{Kind: history.Leftover, Topology: f.name, Proc: proc, Text: fmt.Sprintf(format, args...)})
}

func (f *field) close() {
	for _, p := range f.posts {
		p.close()
	}
	f.servers.close()
}

// client is the campaign's own way to a server, without a proxy.
func client(address string) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: address, MaxRetries: -1, ClientName: "campaign"})
}

// ask lends a client for one server.
func ask(address string, do func(*redis.Client) error) error {
	c := client(address)
	return errors.Join(do(c), c.Close())
}

// everyMaster does something at each master.
func (f *field) everyMaster(ctx context.Context, do func(*redis.Client) error) error {
	masters, err := f.servers.masters(ctx)
	for _, address := range masters {
		err = errors.Join(err, ask(address, do))
	}
	return err
}
