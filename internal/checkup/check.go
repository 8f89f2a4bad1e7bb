// Package checkup owns what Check finds out about servers: their kind, settings, rights and clocks. It
// changes nothing on them, and never decides whether an executor may run.
package checkup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/idemcheck"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
	"github.com/idempotent-go/idempotent/internal/topology"
)

// A Checker inspects the servers of one executor.
type Checker struct {
	Servers      *topology.Servers
	Namespace    string
	Lease        time.Duration
	MessageLimit int
	Replicas     int // of WithReplicaAck
	Sharded      bool
	Cached       bool
}

// Start begins a Check, which calls ended when it is over; done is closed then. A server that hangs may
// keep it longer than its caller waits.
func (c *Checker) Start(ctx context.Context, ended func()) (k *Checkup, done <-chan struct{}) {
	k = &Checkup{core: c, clocks: make(map[string]clockSample)}
	over := make(chan struct{})
	go func() { // a server that hangs may keep it longer than the caller has
		defer ended()
		defer close(over)
		defer k.recoverPanic()
		k.run(ctx)
	}()
	return k, over
}

// A Checkup is one Check.
type Checkup struct {
	core *Checker

	mu       sync.Mutex
	findings []idemcheck.Finding
	clocks   map[string]clockSample // by server
	errs     []error
}

func (k *Checkup) run(ctx context.Context) {
	servers, err := k.servers(ctx)
	if err != nil {
		k.Fail(err)
		return
	}
	var looking sync.WaitGroup
	for _, s := range servers {
		looking.Go(func() {
			defer k.recoverPanic()
			k.add(s.inspect(ctx))
		})
	}
	looking.Wait()
	k.replicaClocks(ctx)
}

// add takes what an inspection found.
func (k *Checkup) add(s *inspection) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.findings = append(k.findings, s.findings...)
	if s.clock.known() {
		k.clocks[s.address] = s.clock
	}
	switch {
	case s.err != nil && s.address != "":
		k.errs = append(k.errs, fmt.Errorf("%s: %w", s.address, s.err))
	case s.err != nil:
		k.errs = append(k.errs, s.err)
	}
}

func (k *Checkup) report(f idemcheck.Finding) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.findings = append(k.findings, f)
}

// Fail adds an error that Result returns. Goroutines may call it at the same time.
func (k *Checkup) Fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.errs = append(k.errs, err)
}

// recoverPanic turns a panic of a client's hook into a failure.
func (k *Checkup) recoverPanic() {
	if v := recover(); v != nil {
		k.Fail(rediserr.PanicError(v))
	}
}

// Result returns the findings so far, the most severe first, and the errors of checks that could not run.
func (k *Checkup) Result() ([]idemcheck.Finding, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	findings := slices.Clone(k.findings)
	slices.SortStableFunc(findings, func(a, b idemcheck.Finding) int {
		return cmp.Or(-cmp.Compare(a.Severity, b.Severity), strings.Compare(a.Server, b.Server))
	})
	if len(k.errs) > 0 {
		return findings, errors.Join(k.errs...)
	}
	return findings, nil
}

// The clients whose servers can be listed, beyond cluster.
type (
	replicated interface {
		ForEachSlave(ctx context.Context, fn func(context.Context, *redis.Client) error) error
		ClusterSlots(ctx context.Context) *redis.ClusterSlotsCmd
	}
	shards interface {
		GetShardClients() []*redis.Client // those that are up
		Options() *redis.RingOptions
	}
)

var (
	errNoShard  = errors.New("no shard of the Ring is up")
	errNoMaster = errors.New("no master of the Cluster is known")
)

// servers lists what there is to inspect.
func (k *Checkup) servers(ctx context.Context) ([]*inspection, error) {
	var found []*inspection
	if cluster := k.core.Servers.Cluster; cluster != nil {
		masters, _ := k.core.Servers.Nodes(ctx) // noMaster says why there are none
		for address, server := range masters {
			found = append(found, k.inspection(address, server))
		}
		if len(found) == 0 {
			return nil, k.noMaster(ctx, cluster)
		}
		k.ownNames(ctx, cluster, found)
		return found, nil
	}
	switch client := k.core.Servers.Client.(type) {
	case shards:
		for _, server := range client.GetShardClients() {
			found = append(found, k.inspection(server.Options().Addr, server))
		}
		if len(found) == 0 {
			return nil, errNoShard
		}
		k.shardsDown(client.Options().Addrs, found)
	case *redis.Client:
		found = append(found, k.inspection(client.Options().Addr, client))
	default:
		found = append(found, k.inspection("", client))
	}
	return found, nil
}

// shardsDown finds the shards that a Ring goes on without.
func (k *Checkup) shardsDown(addrs map[string]string, up []*inspection) {
	down := make(map[string]bool)
	for _, address := range addrs {
		down[address] = true
	}
	for _, s := range up {
		if !down[s.address] { // SetAddrs gave the Ring other shards
			return
		}
	}
	for _, s := range up {
		delete(down, s.address)
	}
	for address := range down {
		k.report(idemcheck.Finding{
			Code: idemcheck.FindingShardDown, Severity: idemcheck.SeverityUnsafe, Server: address,
			Detail: "the shard is down, or was taken out of the Ring, which sends its keys to other shards: what it has recorded runs again there",
			Advice: "Bring it back before anything runs, or use a Cluster",
		})
	}
}

// noMaster says why none is known.
func (k *Checkup) noMaster(ctx context.Context, client topology.Cluster) error {
	_, err := client.MasterForKey(ctx, record.Name(k.core.Namespace, ""))
	return cmp.Or(err, errNoMaster)
}

// inspection begins with the name of the empty key, which is no operation's.
func (k *Checkup) inspection(address string, client redis.UniversalClient) *inspection {
	name := record.Name(k.core.Namespace, "")
	return &inspection{core: k.core, address: address, client: client, name: name, own: name}
}

// maxNames bounds the search for a name of each master: with thousands of tries, even one that
// has a hundredth of the slots is found.
const maxNames = 4096

// ownNames finds a name in a slot of each master, where a write comes to the checks that follow
// the redirection.
func (k *Checkup) ownNames(ctx context.Context, client topology.Cluster, found []*inspection) {
	missing := make(map[string]*inspection)
	for _, s := range found {
		missing[s.address] = s
	}
	for i := 0; i < maxNames && len(missing) > 0; i++ {
		name := record.Name(k.core.Namespace, fmt.Sprint(i))
		master, err := client.MasterForKey(ctx, name)
		if err != nil {
			return
		}
		if s := missing[master.Options().Addr]; s != nil {
			s.own = name
			delete(missing, s.address)
		}
	}
}

// cause says why ctx ended: its error, and its cause where that is another one.
func cause(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}
