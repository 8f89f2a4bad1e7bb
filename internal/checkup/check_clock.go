package checkup

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/idemcheck"
)

// A moment is one of this process, by a clock that nobody sets and by the one on the wall. The
// first stands still while the machine is suspended.
type timestamp struct {
	steady time.Duration // since some moment
	wall   time.Time
}

var someMoment = time.Now()

func now() timestamp {
	t := time.Now()
	return timestamp{t.Sub(someMoment), t.Round(0)}
}

// A reckoning is what a server's clock said, between two moments.
type clockSample struct {
	sent, received timestamp
	server         time.Time
}

func (r clockSample) known() bool { return !r.server.IsZero() }

// ahead is how far the server's clock is ahead of this machine's, and how wrong that may be.
func (r clockSample) ahead() (ahead, doubt time.Duration) {
	trip := r.received.steady - r.sent.steady
	return r.server.Sub(r.sent.wall.Add(trip / 2)), trip / 2
}

// clockBook has the clocks as the last Check saw them.
type clockBook struct {
	mu   sync.Mutex
	last map[string]clockSample // by server
}

func (b *clockBook) recall() map[string]clockSample {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last // never written to once it is here
}

func (b *clockBook) remember(clocks map[string]clockSample) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = clocks
}

const (
	clockSlack = 50 * time.Millisecond // steps that nobody notices
	clockDrift = 100                   // one part in so many is how fast a clock is slewed, and more
)

// excess is how much more than the time it took, from the end of one interval to the beginning of
// the other, a clock counted; negative if less; 0 if it is within what measuring and slewing do.
func excess(counted, least, most time.Duration) time.Duration {
	slack := clockSlack + most/clockDrift
	switch {
	case counted > most+slack:
		return counted - most
	case counted < least-slack:
		return counted - least
	}
	return 0
}

// jump is how far the server's clock jumped from one reckoning to the next, and whether the wall
// clock of this machine went with it.
func jump(from, to clockSample) (by time.Duration, together bool) {
	counted := to.server.Sub(from.server)
	by = excess(counted, to.sent.steady-from.received.steady, to.received.steady-from.sent.steady)
	byWall := excess(counted, to.sent.wall.Sub(from.received.wall), to.received.wall.Sub(from.sent.wall))
	return by, by != 0 && byWall == 0
}

// reckon asks a server for its time.
func sampleClock(ctx context.Context, client redis.UniversalClient) (clockSample, error) {
	sent := now()
	cmd := redis.NewTimeCmd(ctx, "time")
	_ = client.Process(ctx, cmd) // the error is in cmd
	return clockSample{sent: sent, received: now(), server: cmd.Val()}, cmd.Err()
}

// readClock begins the inspection, so it also makes the connection, unless there is one.
func (s *inspection) readClock(ctx context.Context) (r clockSample, known bool) {
	r, err := sampleClock(ctx, s.client)
	switch {
	case err == nil:
		return r, true
	case replied(err):
		s.notChecked("TIME", "+time", "the server's clock", err)
	default:
		s.err = err
	}
	return r, false
}

// checkClock compares the clock with what it was at the beginning of this Check and at the end of
// the last one.
func (s *inspection) checkClock(ctx context.Context, first clockSample) {
	last, known := s.readClock(ctx)
	if !known {
		return
	}
	s.clock = last
	s.reportJump(first, last)
	if s.last.known() {
		s.reportJump(s.last, first)
	}
	ahead, doubt := last.ahead()
	if off := ahead.Abs() - doubt; off >= max(s.slackOfLease(), time.Second) {
		s.find(idemcheck.FindingClockOff, idemcheck.SeverityWarning, clockAdvice,
			"the clocks of the server and of this machine differ by %v: one of them is wrong, and if the server's is set right in one step, leases and TTLs jump with it", off.Round(time.Millisecond))
	}
}

const clockAdvice = "Keep the machine's clock right with NTP, and have it slewed, not stepped"

// slackOfLease is what a living owner has left of its lease, at least, before it renews.
func (s *inspection) slackOfLease() time.Duration { return s.core.Lease * 2 / 3 }

func (s *inspection) reportJump(from, to clockSample) {
	by, together := jump(from, to)
	took := (to.received.steady - from.sent.steady).Round(time.Millisecond)
	direction := "ahead, so that leases and TTLs end early"
	if by < 0 {
		direction = "back, so that leases and TTLs end late"
	}
	switch {
	case by == 0:
	case together:
		s.find(idemcheck.FindingClockJump, idemcheck.SeverityWarning, clockAdvice,
			"the clocks of the server and of this machine went %v %s, in %v of this process's time; or this machine was suspended, with its leases", by.Abs().Round(time.Millisecond), direction, took)
	case by >= s.slackOfLease():
		s.find(idemcheck.FindingClockJump, idemcheck.SeverityUnsafe, clockAdvice,
			"the server's clock went %v %s, in %v of this process's time: owners that live lost their leases of %v", by.Round(time.Millisecond), direction, took, s.core.Lease)
	default:
		s.find(idemcheck.FindingClockJump, idemcheck.SeverityWarning, clockAdvice,
			"the server's clock went %v %s, in %v of this process's time", by.Abs().Round(time.Millisecond), direction, took)
	}
}

// replicaClocks compares the clocks of a Cluster's masters with those of their replicas: an
// expiry is replicated as a moment, so what is left of it changes when a replica takes over. No
// other client knows the replicas.
func (k *Checkup) replicaClocks(ctx context.Context) {
	client, ok := any(k.core.Servers.Cluster).(replicated)
	if !ok {
		return
	}
	slots, err := client.ClusterSlots(ctx).Result()
	if err != nil {
		return
	}
	masterOf := make(map[string]string)
	for _, slot := range slots {
		for _, node := range slot.Nodes {
			masterOf[node.Addr] = slot.Nodes[0].Addr
		}
	}
	_ = client.ForEachSlave(ctx, func(ctx context.Context, replica *redis.Client) error {
		address := replica.Options().Addr
		master, known := k.clocks[masterOf[address]]
		if !known {
			return nil
		}
		if clock, err := sampleClock(ctx, replica); err == nil {
			k.compare(address, masterOf[address], clock, master)
		}
		return nil
	})
}

func (k *Checkup) compare(replica, address string, clock, master clockSample) {
	ahead, doubt := clock.ahead()
	masterAhead, masterDoubt := master.ahead()
	off := (ahead - masterAhead).Abs() - doubt - masterDoubt
	lease := k.core.Lease
	severity := idemcheck.SeverityWarning
	switch {
	case off < max(lease/10, clockSlack):
		return
	case off >= lease*2/3:
		severity = idemcheck.SeverityUnsafe
	}
	k.report(idemcheck.Finding{
		Code: idemcheck.FindingReplicaClock, Severity: severity, Server: replica, Advice: clockAdvice,
		Detail: fmt.Sprintf("the clocks of this replica and of its master %s differ by %v: a failover changes what is left of leases, %v long, and TTLs by that much", address, off.Round(time.Millisecond), lease),
	})
}
