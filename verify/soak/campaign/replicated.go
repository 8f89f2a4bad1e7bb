package campaign

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// What a master acknowledged and its replica does not have is lost when the replica takes its
// place. The functions here tell the history from when to when that could be, and make that time
// as short as they can, so that the checker forgives nothing else.

// losing does what may lose writes of a master, whose keys are those in slots. The time in which
// they may be lost begins with a write that is known to have reached all replicas, just before,
// and ends when done returns: the old master acknowledges nothing any more.
func (f *field) losing(ctx context.Context, master string, replicas int, marker string, slots []history.Range, do, done func() error) error {
	ctx = context.WithoutCancel(ctx)
	on := history.Event{Kind: history.LossOn, Topology: f.name, Slots: slots, Acked: f.servers.acks() > 0}
	off := func() { f.log.Append(history.Event{Kind: history.LossOff, Topology: f.name}) }
	defer off()
	for limit := time.Now().Add(patience); ; {
		f.log.Append(on)
		acked, err := inStep(ctx, master, replicas, marker)
		if err == nil && acked {
			break
		}
		off()
		if time.Now().After(limit) {
			return errors.Join(err, errTooLong)
		}
	}
	return errors.Join(do(), done())
}

// planned is a fault in which the campaign itself replaces a master.
func (f *field) planned(name string, inject func(context.Context, *rand.Rand) error) fault {
	return fault{name: name, takes: 10 * lease, inject: func(ctx context.Context, r *rand.Rand) error {
		defer f.roles.plan()()
		return inject(ctx, r)
	}}
}

// inStep writes a marker and reports whether the replicas have it, and so all that was before it.
func inStep(ctx context.Context, master string, replicas int, marker string) (acked bool, err error) {
	err = ask(master, func(c *redis.Client) error {
		conn := c.Conn()
		defer conn.Close()
		if err := conn.Set(ctx, marker, "", time.Minute).Err(); err != nil {
			return err
		}
		n, err := conn.Wait(ctx, replicas, 200*time.Millisecond).Result()
		acked = int(n) >= replicas
		return err
	})
	return acked, err
}

// demoted returns when the server knows that it is no master any more.
func demoted(ctx context.Context, address string) error {
	c := client(address)
	defer c.Close()
	return until(context.WithoutCancel(ctx), "the old master to become a replica", func() (bool, error) {
		info, err := c.Info(context.WithoutCancel(ctx), "replication").Result()
		return err == nil && !isMaster(info), err
	})
}

func isMaster(info string) bool { return strings.Contains(info, "role:master") }

func nothing() error { return nil }
