package campaign

import (
	"context"
	"maps"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// A busy machine can make servers replace a master that nobody harmed. roles notices such a
// failover and tells the history that something may have been lost, since when all was as before.
type roles struct {
	field   *field
	masters int
	clients map[string]*redis.Client
	planned atomic.Int32 // failovers under way that the campaign knows of
	ended   atomic.Int32 // such failovers that are over
	stop    context.CancelFunc
	gone    chan struct{} // closed when watch has returned
}

const (
	rolesTick = 25 * time.Millisecond
	// rolesLag is how far a replica may have been behind the master whose place it took.
	rolesLag  = time.Second
	unplanned = "a failover that nobody asked for"
)

func newRoles(f *field, masters int) *roles {
	ctx, cancel := context.WithCancel(context.Background())
	r := &roles{field: f, masters: masters, clients: make(map[string]*redis.Client), stop: cancel, gone: make(chan struct{})}
	for _, address := range f.servers.data() {
		r.clients[address] = redis.NewClient(&redis.Options{
			Addr: address, MaxRetries: -1, DialTimeout: rolesTick * 4, ReadTimeout: rolesTick * 4, DialerRetries: 1,
		})
	}
	go r.watch(ctx)
	return r
}

func (r *roles) close() {
	r.stop()
	<-r.gone
	for _, c := range r.clients {
		_ = c.Close()
	}
}

// plan says that a failover is the campaign's own, until done is called.
func (r *roles) plan() (done func()) {
	r.planned.Add(1)
	return func() { r.ended.Add(1); r.planned.Add(-1) }
}

func (r *roles) watch(ctx context.Context) {
	defer close(r.gone)
	var known map[string]bool
	good := time.Now()
	seen := int32(0)
	for open := false; hold(ctx, rolesTick); {
		began, planned, ended := time.Now(), r.planned.Load() > 0, r.ended.Load()
		now := r.look(ctx, known)
		ours := planned || r.planned.Load() > 0 || ended != seen || r.ended.Load() != seen
		seen = ended
		switch {
		case open && len(now) == r.masters:
			r.note(history.LossOff, history.FaultOff, 0)
			open, known = false, now
		case open:
			continue
		case ours, known == nil && len(now) == r.masters:
			known = now
		case !maps.Equal(known, now):
			r.note(history.LossOn, history.FaultOn, time.Since(good)+rolesLag)
			open = true
			continue
		}
		good = began
	}
}

// look says who takes itself for a master. One that does not answer is what it was.
func (r *roles) look(ctx context.Context, before map[string]bool) map[string]bool {
	now := make(map[string]bool)
	for address, c := range r.clients {
		info, err := c.Info(ctx, "replication").Result()
		if err == nil && isMaster(info) || err != nil && before[address] {
			now[address] = true
		}
	}
	return now
}

func (r *roles) note(loss, fault history.Kind, took time.Duration) {
	l := r.field.log
	l.Append(history.Event{Kind: loss, Topology: r.field.name, Took: took, Acked: r.field.servers.acks() > 0, Text: unplanned})
	l.Append(history.Event{Kind: fault, Topology: r.field.name, Fault: unplanned})
}
