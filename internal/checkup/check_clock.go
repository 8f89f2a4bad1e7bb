package checkup

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/idemcheck"
)

// A clockSample is a server's TIME reply with the local time before and after the request.
type clockSample struct{ sent, received, server time.Time }

func (c clockSample) known() bool { return !c.server.IsZero() }

// ahead returns how far the server's clock is ahead of this machine's, and how wrong that may be: half
// the round trip.
func (c clockSample) ahead() (ahead, uncertainty time.Duration) {
	trip := c.received.Sub(c.sent) // monotonic
	return c.server.Sub(c.sent.Round(0).Add(trip / 2)), trip / 2
}

// clockSlack is a difference that does no harm.
const clockSlack = 50 * time.Millisecond

// sampleClock asks a server for its time.
func sampleClock(ctx context.Context, client redis.UniversalClient) (clockSample, error) {
	sent := time.Now()
	cmd := redis.NewTimeCmd(ctx, "time")
	_ = client.Process(ctx, cmd) // the error is in cmd
	return clockSample{sent: sent, received: time.Now(), server: cmd.Val()}, cmd.Err()
}

// readClock comes first, since it also makes the connection. Its sample is not used for the comparison:
// the time to connect would make it uncertain.
func (s *inspection) readClock(ctx context.Context) (known bool) {
	sample, err := sampleClock(ctx, s.client)
	switch {
	case err == nil:
		s.clock = sample
		return true
	case replied(err):
		s.notChecked("TIME", "+time", "the server's clock", err)
	default:
		s.err = err
	}
	return false
}

// checkClock compares the server's clock with this machine's.
func (s *inspection) checkClock(ctx context.Context) {
	if !s.readClock(ctx) {
		return
	}
	ahead, uncertainty := s.clock.ahead()
	if off := ahead.Abs() - uncertainty; off >= max(s.slackOfLease(), time.Second) {
		s.find(idemcheck.FindingClockOff, idemcheck.SeverityWarning, clockAdvice,
			"the clocks of the server and of this machine differ by %v: one of them is wrong, and if the server's is set right in one step, leases and TTLs jump with it", off.Round(time.Millisecond))
	}
}

const clockAdvice = "Keep the machine's clock right with NTP, and have it slewed, not stepped"

// slackOfLease returns how much of its lease a living owner has left, at least, before it renews.
func (s *inspection) slackOfLease() time.Duration { return s.core.Lease * 2 / 3 }

// replicaClocks compares the clocks of a Cluster's masters with those of their replicas: an expiry is
// replicated as an absolute time, so what is left of it changes when a replica is promoted. Only a
// Cluster client lists the replicas.
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
		if sample, err := sampleClock(ctx, replica); err == nil {
			k.compare(address, masterOf[address], sample, master)
		}
		return nil
	})
}

func (k *Checkup) compare(replica, address string, sample, master clockSample) {
	ahead, uncertainty := sample.ahead()
	masterAhead, masterUncertainty := master.ahead()
	off := (ahead - masterAhead).Abs() - uncertainty - masterUncertainty
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
