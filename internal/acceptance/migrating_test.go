package acceptance

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// These tests run old code and new code at the same time, as a rolling deployment does. They go with
// docs/migrating.md, which shows the code between the marks.

const migratingOrders = 100

// A paidOrder is the result that old and new code give their callers.
type paidOrder struct {
	ID string `json:"id"`
}

// A forgetfulProvider charges as often as it is called: it knows no idempotency key.
type forgetfulProvider struct {
	takes time.Duration
	fails error // if set, it charges nothing

	mu      sync.Mutex
	charges map[string]int
}

func (p *forgetfulProvider) charge(order string) (paidOrder, error) {
	time.Sleep(p.takes) // zero on a real Redis
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fails != nil {
		return paidOrder{}, p.fails
	}
	p.charges[order]++
	return paidOrder{ID: fmt.Sprintf("ch_%s_%d", order, p.charges[order])}, nil
}

func (p *forgetfulProvider) find(_ context.Context, order string) (paidOrder, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return paidOrder{ID: "ch_" + order + "_1"}, p.charges[order] > 0, nil
}

// chargedTwice returns how many orders were charged more than once.
func (p *forgetfulProvider) chargedTwice(t *testing.T) (orders int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Len(t, p.charges, migratingOrders, "every order is charged")
	for _, times := range p.charges {
		if times > 1 {
			orders++
		}
	}
	return orders
}

// A deployment has old processes and new ones on one Redis.
type deployment struct {
	provider *forgetfulProvider
	before   redis.UniversalClient // the old processes'
	rdb      redis.UniversalClient // the new processes'
	charges  *idempotent.Executor[paidOrder]
}

// duringDeployment calls test in fake time on an in-memory server, and on a real Redis.
func duringDeployment(t *testing.T, test func(t *testing.T, d *deployment)) {
	t.Helper()
	t.Run("fake time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			server := idemtest.NewRedis(t)
			test(t, newDeployment(t, server, server, 50*time.Millisecond))
		})
	})
	t.Run("real Redis", func(t *testing.T) {
		options, err := redis.ParseURL(redistest.Start(t).URL())
		require.NoError(t, err)
		before, after := redis.NewClient(options), redis.NewClient(options)
		t.Cleanup(func() { _ = errors.Join(before.Close(), after.Close()) })
		test(t, newDeployment(t, before, after, 0))
	})
}

func newDeployment(t *testing.T, before, after redis.UniversalClient, takes time.Duration) *deployment {
	t.Helper()
	charges, err := idempotent.New[paidOrder](after, "payments",
		idempotent.WithShouldIgnoreError(idempotent.IsRetryable))
	require.NoError(t, err)
	t.Cleanup(func() { _ = charges.Close() })
	return &deployment{
		provider: &forgetfulProvider{takes: takes, charges: make(map[string]int)},
		before:   before, rdb: after, charges: charges,
	}
}

// A charger is how a process charges an order.
type charger func(ctx context.Context, order string) (paidOrder, error)

// run lets an old process and a new one charge each order, both at once.
func (d *deployment) run(t *testing.T, old, updated charger) {
	t.Helper()
	var all sync.WaitGroup
	for i := range migratingOrders {
		order, oldIsDone := fmt.Sprintf("order-%d", i), make(chan struct{})
		all.Go(func() {
			defer close(oldIsDone)
			if _, err := old(t.Context(), order); err != nil {
				assert.ErrorIs(t, err, errDuplicate)
			}
		})
		all.Go(func() {
			_, err := updated(t.Context(), order)
			if errors.Is(err, errStillCharging) { // a caller comes back later
				<-oldIsDone
				_, err = updated(t.Context(), order)
			}
			assert.NoError(t, err)
		})
	}
	all.Wait()
}

// firstCharge fails the test if a caller of charge gets anything but the first charge of its order.
func firstCharge(t *testing.T, charge charger) charger {
	return func(ctx context.Context, order string) (paidOrder, error) {
		paid, err := charge(ctx, order)
		if err == nil {
			assert.Equal(t, "ch_"+order+"_1", paid.ID)
		}
		return paid, err
	}
}

var errDuplicate = errors.New("this order is charged already")

// chargeByHand is the old code: one process wins the key, all others learn only that they lost.
func (d *deployment) chargeByHand(ctx context.Context, order string) (paidOrder, error) {
	won, err := d.before.SetNX(ctx, "charged:"+order, "1", 24*time.Hour).Result()
	if err != nil {
		return paidOrder{}, err
	}
	if !won {
		return paidOrder{}, errDuplicate
	}
	return d.provider.charge(order)
}

// withoutBridge is the new code as it is written where no old code runs.
func (d *deployment) withoutBridge(ctx context.Context, order string) (paidOrder, error) {
	return d.charges.Run(ctx, order, func(context.Context) (paidOrder, error) { return d.provider.charge(order) })
}

// docs/migrating.md, by hand: begin

var errStillCharging = errors.New("an old process may be charging this order")

// bridgedByHand runs inside fn. It takes the old code's key before it charges, so old processes
// refuse the order from then on.
func (d *deployment) bridgedByHand(ctx context.Context, order string) (paidOrder, error) {
	info, _ := idempotent.RunInfoFromContext(ctx)
	mark := info.DownstreamKey() // the same for every attempt: attempt 2 recognises the mark of attempt 1
	found, err := d.rdb.SetArgs(ctx, "charged:"+order, mark,
		redis.SetArgs{Mode: "NX", Get: true, TTL: 24 * time.Hour}).Result()
	switch {
	case errors.Is(err, redis.Nil), err == nil && found == mark: // no old process has it
		return d.chargeOnce(ctx, order, info)
	case err != nil:
		return paidOrder{}, idempotent.Retryable(err) // nothing was charged here
	}
	charge, charged, err := d.provider.find(ctx, order) // an old process has it: what did it do?
	if err == nil && !charged {
		err = errStillCharging
	}
	return charge, idempotent.Retryable(err) // nil stays nil
}

// docs/migrating.md, by hand: end

// chargeOnce is the code that stays when the bridge is removed.
func (d *deployment) chargeOnce(ctx context.Context, order string, info idempotent.RunInfo) (paidOrder, error) {
	if info.Attempt > 1 {
		if charge, charged, err := d.provider.find(ctx, order); charged || err != nil {
			return charge, idempotent.OutcomeUnknown(err)
		}
	}
	return d.provider.charge(order)
}

func TestMigratingFromSetNXByHand(t *testing.T) {
	duringDeployment(t, func(t *testing.T, d *deployment) {
		updated := func(ctx context.Context, order string) (paidOrder, error) {
			return d.charges.Run(ctx, order, func(ctx context.Context) (paidOrder, error) { return d.bridgedByHand(ctx, order) })
		}
		d.run(t, d.chargeByHand, firstCharge(t, updated))
		assert.Zero(t, d.provider.chargedTwice(t))
	})
}

func TestMigratingFromSetNXWithoutBridge(t *testing.T) {
	duringDeployment(t, func(t *testing.T, d *deployment) {
		d.run(t, d.chargeByHand, d.withoutBridge)
		assert.Equal(t, migratingOrders, d.provider.chargedTwice(t))
	})
}

// An attempt that took the old code's key and ended before it charged does not block the next one.
func TestMigratingFromSetNXRecognisesItsOwnMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := idemtest.NewRedis(t)
		d := newDeployment(t, server, server, 0)
		updated := func() (paidOrder, error) {
			return d.charges.Run(t.Context(), "order-1", func(ctx context.Context) (paidOrder, error) { return d.bridgedByHand(ctx, "order-1") })
		}
		d.provider.fails = idempotent.OutcomeUnknown(errors.New("the connection is lost"))
		_, err := updated()
		require.ErrorIs(t, err, d.provider.fails)

		d.provider.fails = nil
		charge, err := updated()
		require.NoError(t, err)
		assert.Equal(t, paidOrder{ID: "ch_order-1_1"}, charge)
		_, err = d.chargeByHand(t.Context(), "order-1")
		require.ErrorIs(t, err, errDuplicate)
		assert.Equal(t, map[string]int{"order-1": 1}, d.provider.charges)
	})
}

// docs/migrating.md, npm: begin

const npmLockTTL = time.Minute

var npmUnlock = redis.NewScript(`return redis.call("get", KEYS[1]) == ARGV[1] and redis.call("del", KEYS[1])`)

// bridgedToNPM runs inside fn. It runs charge under the lock of idempotency-redis 1.5, replays what
// that package has stored for the key, and stores its own charge where that package finds it.
func (d *deployment) bridgedToNPM(ctx context.Context, key string, charge func(context.Context) (paidOrder, error)) (paidOrder, error) {
	lock := "idempotent-executor-lock:namespace:payments:key:" + encodeURIComponent(key)
	result := "idempotent-executor-result:payments:" + key
	var paid paidOrder
	token := rand.Text()
	for won := false; !won; {
		var err error
		if won, err = d.rdb.SetNX(ctx, lock, token, npmLockTTL).Result(); err != nil {
			return paid, idempotent.Retryable(err) // nothing was charged here
		}
		if !won {
			select {
			case <-ctx.Done():
				return paid, ctx.Err()
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
	defer npmUnlock.Run(context.WithoutCancel(ctx), d.rdb, []string{lock}, token)

	stored, err := d.rdb.HGetAll(ctx, result).Result()
	switch {
	case err != nil:
		return paid, idempotent.Retryable(err)
	case stored["type"] == "error":
		return paid, errors.New(stored["error"]) // JSON with name and message
	case stored["type"] == "value":
		err = json.Unmarshal([]byte(stored["value"]), &paid)
		return paid, err
	}
	ctx, cancel := context.WithTimeout(ctx, npmLockTTL*3/4) // the lock is not renewed here
	defer cancel()
	if paid, err = charge(ctx); err != nil {
		return paid, err
	}
	value, err := json.Marshal(paid)
	if err == nil {
		err = d.rdb.HSet(ctx, result, "type", "value", "value", value).Err()
	}
	return paid, idempotent.OutcomeUnknown(err) // attempt 2 finds the charge and stores it
}

// encodeURIComponent encodes as JavaScript does.
func encodeURIComponent(s string) string {
	return strings.NewReplacer("+", "%20", "%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*").
		Replace(url.QueryEscape(s))
}

// docs/migrating.md, npm: end

var npmAcquire = redis.NewScript(`
if redis.call("exists", KEYS[1]) == 1 then return 0 end
redis.call("set", KEYS[1], ARGV[1], "PX", ARGV[2])
return 1`)

// chargeByNPM does what idempotency-redis 1.5.1 does with redlock 5.0.0-beta.2: it polls for the
// lock, reads the result, runs the action, stores the result, and unlocks.
func (d *deployment) chargeByNPM(ctx context.Context, order string) (paid paidOrder, err error) {
	lock := "idempotent-executor-lock:namespace:payments:key:" + order
	result := "idempotent-executor-result:payments:" + order
	token := rand.Text()
	for {
		won, err := npmAcquire.Run(ctx, d.before, []string{lock}, token, time.Minute.Milliseconds()).Int()
		if err != nil {
			return paid, err
		}
		if won == 1 {
			break
		}
		time.Sleep(200 * time.Millisecond) // its polling interval
	}
	defer npmUnlock.Run(ctx, d.before, []string{lock}, token)
	stored, err := d.before.HGetAll(ctx, result).Result()
	if err != nil {
		return paid, err
	}
	if stored["type"] == "value" {
		err = json.Unmarshal([]byte(stored["value"]), &paid)
		return paid, err
	}
	if paid, err = d.provider.charge(order); err != nil {
		return paid, err
	}
	value, err := json.Marshal(paid)
	if err != nil {
		return paid, err
	}
	return paid, d.before.HSet(ctx, result, "type", "value", "value", value).Err()
}

func TestMigratingFromNPM(t *testing.T) {
	duringDeployment(t, func(t *testing.T, d *deployment) {
		updated := func(ctx context.Context, order string) (paidOrder, error) {
			return d.charges.Run(ctx, order, func(ctx context.Context) (paidOrder, error) {
				info, _ := idempotent.RunInfoFromContext(ctx)
				return d.bridgedToNPM(ctx, order, func(ctx context.Context) (paidOrder, error) {
					return d.chargeOnce(ctx, order, info)
				})
			})
		}
		d.run(t, firstCharge(t, d.chargeByNPM), firstCharge(t, updated))
		assert.Zero(t, d.provider.chargedTwice(t))
	})
}

func TestMigratingFromNPMWithoutBridge(t *testing.T) {
	duringDeployment(t, func(t *testing.T, d *deployment) {
		d.run(t, d.chargeByNPM, d.withoutBridge)
		assert.Equal(t, migratingOrders, d.provider.chargedTwice(t))
	})
}

func TestMigratingEncodesLikeJavaScript(t *testing.T) {
	assert.Equal(t, "a%20b%2Bc%2F%C3%A4!'()*~-_.%25%2521", encodeURIComponent("a b+c/ä!'()*~-_.%%21"))
}
