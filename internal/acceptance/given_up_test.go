package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// A claim under which fn never began leaves nothing behind once Redis could be told, however many are
// given up at once.

// neverBegun fails the test if it runs.
func neverBegun(t testing.TB) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		t.Error("fn began")
		return "", nil
	}
}

// 2,000 callers leave while Redis is 20 ms away, and while it is stalled for a second.
func TestManyClaimsGivenUpAtOnce(t *testing.T) {
	const callers = 2000
	for name, test := range map[string]struct {
		delay   time.Duration // to Redis and back
		stall   time.Duration
		timeout time.Duration // of the client
	}{
		"20 ms to Redis":           {delay: 20 * time.Millisecond, timeout: 3 * time.Second},
		"stalled for a second":     {stall: time.Second, timeout: 3 * time.Second},
		"stalled beyond a timeout": {stall: time.Second, timeout: 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			for _, policy := range []idempotent.InterruptedPolicy{idempotent.Rerun, idempotent.Refuse} {
				server := redistest.Start(t)
				options, err := redis.ParseURL(server.URL())
				require.NoError(t, err)
				options.ReadTimeout, options.PoolSize = test.timeout, 20
				if test.delay > 0 {
					options.Dialer = slowly(test.delay)
				}
				onRealRedisAt(t, server.URL(), func(w *world) {
					client := redis.NewClient(options)
					w.Cleanup(func() { _ = client.Close() })
					leaving := w.executorOn(client, idempotent.WithLease(20*time.Second), idempotent.WithInterrupted(policy))
					if test.stall > 0 {
						time.AfterFunc(test.stall, server.Stall(t))
					}
					ctx, cancel := context.WithTimeout(w.Context(), 10*time.Millisecond)
					defer cancel()
					var all sync.WaitGroup
					for i := range callers {
						all.Go(func() {
							_, err := leaving.Run(ctx, strconv.Itoa(i), func(ctx context.Context) (string, error) {
								return "", idempotent.OutcomeUnknown(errors.New("fn began")) // it may, before the deadline
							})
							if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, idempotent.ErrUnavailable) {
								assert.ErrorContains(w, err, "fn began")
							}
						})
					}
					all.Wait()
					began := leaving.Count(idempotent.EventExecuted)
					require.NoError(w, leaving.Close(), "sends what is left")
					free := 0
					other := w.executor(idempotent.WithLease(20 * time.Second))
					for i := range callers {
						if s, err := other.Peek(w.Context(), strconv.Itoa(i)); err == nil && s.State == idempotent.StateAbsent {
							free++
						}
					}
					assert.Equal(w, callers-began, free)
				})
			}
		})
	}
}

// slowly dials connections on which each reply comes late.
func slowly(delay time.Duration) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		return &slowConn{conn, delay}, err
	}
}

type slowConn struct {
	net.Conn
	delay time.Duration
}

func (c *slowConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	time.Sleep(c.delay) // the way back
	return n, err
}

// A claim can arrive after its own release, when both waited in a stalled server's buffers.
func TestClaimThatArrivesAfterItsRelease(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x := w.executor()
		late := &lateClaim{lost: errors.New("i/o timeout")}
		x.client.AddHook(late)
		_, err := x.Run(w.Context(), "order-1", neverBegun(w))
		require.ErrorIs(w, err, idempotent.ErrUnavailable)
		time.Sleep(time.Second) // its release has found nothing
		late.arrive(w, w.client(nil))
		other := w.executor()
		s, err := other.Peek(w.Context(), "order-1")
		require.NoError(w, err)
		require.Equal(w, idempotent.StateRunning, s.State, "the claim has arrived")
		time.Sleep(2 * time.Second)
		assert.Equal(w, 1, attemptAfter(w, other, "order-1", idempotent.WithNoWait()))
	})
}

// lateClaim keeps the first claim back.
type lateClaim struct {
	refuse
	lost error
	args []any
}

func (l *lateClaim) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); l.args == nil && args[0] == "set" {
			l.args = append(l.args, args...)
			cmd.SetErr(l.lost)
			return l.lost
		}
		return next(ctx, cmd)
	}
}

func (l *lateClaim) arrive(w *world, client *redis.Client) {
	w.Helper()
	if err := client.Do(w.Context(), l.args...).Err(); !errors.Is(err, redis.Nil) {
		require.NoError(w, err)
	}
}

// A take-over that was given up counts no attempt either.
func TestTakeOverGivenUp(t *testing.T) {
	everywhere(t, func(w *world) {
		dead, other := w.executor(), w.executor()
		_, err := dead.Run(w.Context(), "order-1", func(context.Context) (string, error) {
			return "", idempotent.OutcomeUnknown(errors.New("reset"))
		})
		require.Error(w, err)
		ctx, cancel := context.WithCancel(w.Context())
		other.client.AddHook(afterwards{change: func(cmd redis.Cmder) error {
			if isTakeOver(cmd) {
				cancel()
			}
			return nil
		}})
		_, err = other.Run(ctx, "order-1", neverBegun(w))
		require.ErrorIs(w, err, context.Canceled)
		require.NotErrorIs(w, err, idempotent.ErrUnavailable)
		require.NoError(w, other.Close())
		assert.Equal(w, 2, attemptAfter(w, w.executor(), "order-1", idempotent.WithNoWait()))
	})
}

// A caller's own deadline is its own error, also where the client's timer fires a moment before.
func TestOwnDeadlineIsNoOutage(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for name, change := range map[string]func(*redis.Options){
		"client that ignores it": func(*redis.Options) {},
		"client that has it":     func(o *redis.Options) { o.ContextTimeoutEnabled = true },
	} {
		t.Run(name, func(t *testing.T) {
			onRealRedisAt(t, server.URL(), func(w *world) {
				options := w.options
				options.ReadTimeout = 200 * time.Millisecond
				change(&options)
				client := redis.NewClient(&options)
				w.Cleanup(func() { _ = client.Close() })
				x := w.executorOn(client)
				_, err := x.Run(w.Context(), "warm", charged)
				require.NoError(w, err)
				defer server.Stall(t)()
				ctx, cancel := context.WithTimeout(w.Context(), 50*time.Millisecond)
				defer cancel()
				_, err = x.Run(ctx, "order-1", neverBegun(w))
				require.ErrorIs(w, err, context.DeadlineExceeded)
				require.NotErrorIs(w, err, idempotent.ErrUnavailable)
			})
		})
	}
}

// A finished key is replayed by a server that refuses writes, whatever the refusal; a new one is refused.
func TestServersThatRefuseWrites(t *testing.T) {
	t.Parallel()
	for name, configure := range map[string]func(*redis.Client) error{
		"NOREPLICAS": func(c *redis.Client) error { return c.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err() },
		"READONLY":   func(c *redis.Client) error { return c.ReplicaOf(t.Context(), "127.0.0.1", "1").Err() },
		"MISCONF": func(c *redis.Client) error {
			dir := t.TempDir()
			if err := c.ConfigSet(t.Context(), "dir", dir).Err(); err != nil {
				return err
			}
			if err := os.Remove(dir); err != nil {
				return err
			}
			if err := c.ConfigSet(t.Context(), "save", "3600 1").Err(); err != nil {
				return err
			}
			_ = c.Save(t.Context()).Err() // fails, and so sets the state
			return c.BgSave(t.Context()).Err()
		},
		"OOM": func(c *redis.Client) error { return c.ConfigSet(t.Context(), "maxmemory", "1").Err() },
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, "--enable-protected-configs", "yes")
			onRealRedisAt(t, server.URL(), func(w *world) {
				options := w.options
				options.MaxRetries = -1 // go-redis would ask a read-only server again
				client := redis.NewClient(&options)
				w.Cleanup(func() { _ = client.Close() })
				x := w.executorOn(client)
				_, err := x.Run(w.Context(), "order-1", charged)
				require.NoError(w, err)
				require.NoError(w, configure(server.Client(t)))
				require.Eventually(w, func() bool {
					return server.Client(t).Set(w.Context(), "probe", "", 0).Err() != nil
				}, 10*time.Second, 10*time.Millisecond, "the server refuses writes")
				v, err := x.Run(w.Context(), "order-1", neverBegun(w))
				require.NoError(w, err)
				assert.Equal(w, "charged", v)
				_, err = x.Run(w.Context(), "order-2", neverBegun(w))
				require.ErrorIs(w, err, idempotent.ErrUnavailable)
				require.ErrorContains(w, err, name)
			})
		})
	}
}

// A running record without an expiry is not taken from an owner that lives, and not left to one that
// is dead.
func TestRunningRecordWithoutAnExpiry(t *testing.T) {
	for name, alive := range map[string]bool{"living owner": true, "dead owner": false} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(w *world) {
				owner, other := w.executor(), w.executor()
				p := w.provider()
				first := owner.start(w.Context(), "order-1", p.charge)
				<-p.started
				if !alive {
					owner.wire.sever()
				}
				require.NoError(w, other.client.Persist(w.Context(), w.name("order-1")).Err())
				q := w.provider()
				second := other.start(w.Context(), "order-1", q.charge)
				other.waits(w)
				if alive {
					owner.Wait(w, idempotent.EventRenewed, 2)
					assert.Zero(w, q.count())
					p.answer("charged", nil)
					first.returned(w, "charged")
					second.returned(w, "charged")
					assert.Zero(w, q.count())
					return
				}
				<-q.started
				assert.Equal(w, 2, q.last().Attempt)
				q.answer("charged again", nil)
				second.returned(w, "charged again")
				owner.wire.mend()
				p.answer("charged", nil)
				first.wait(w)
			})
		})
	}
}

// Redis hangs when fn has ended: Run returns after the documented time, whatever the client's timeouts.
func TestCommitIsBounded(t *testing.T) {
	for _, timeout := range []time.Duration{-1, 10 * time.Second} {
		for name, test := range map[string]struct {
			opts []idempotent.RunOption
			fn   func(context.Context) (string, error)
			want time.Duration
			err  error
		}{
			"value":            {nil, charged, 6 * time.Second, idempotent.ErrNotRecorded},
			"value, shortened": {[]idempotent.RunOption{idempotent.WithCommitWait(time.Second)}, charged, time.Second, idempotent.ErrNotRecorded},
			"ignored error": {[]idempotent.RunOption{idempotent.WithShouldIgnoreError(func(error) bool { return true })},
				func(context.Context) (string, error) { return "", errDeclined }, 6 * time.Second, errDeclined},
			"unknown error": {nil, func(context.Context) (string, error) { return "", idempotent.OutcomeUnknown(errDeclined) }, 6 * time.Second, errDeclined},
		} {
			t.Run(fmt.Sprintf("%s, ReadTimeout %v", name, timeout), func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t)
				options, err := redis.ParseURL(server.URL())
				require.NoError(t, err)
				options.ReadTimeout = timeout
				client := redis.NewClient(options)
				defer client.Close()
				x, err := idempotent.New[string](client, "test", idempotent.WithLease(2*time.Second))
				require.NoError(t, err)
				var ended time.Time
				resume := func() {}
				_, err = x.Run(t.Context(), "order-1", func(ctx context.Context) (string, error) {
					v, err := test.fn(ctx)
					resume = server.Stall(t)
					ended = time.Now()
					return v, err
				}, test.opts...)
				took := time.Since(ended)
				require.ErrorIs(t, err, test.err)
				assert.GreaterOrEqual(t, took, test.want)
				assert.Less(t, took, test.want+3*time.Second)
				resume()
				require.NoError(t, x.Close())
			})
		}
	}
}

// What a client gets early is recorded behind it, under a lease that is still renewed.
func TestCommitGoesOnBehindTheCaller(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x, other := w.executor(), w.executor()
		v, err := x.Run(w.Context(), "order-1", func(context.Context) (string, error) {
			x.wire.sever()
			return "charged", nil
		}, idempotent.WithCommitWait(time.Second))
		require.ErrorIs(w, err, idempotent.ErrNotRecorded)
		assert.Equal(w, "charged", v)
		x.wire.mend()
		x.Wait(w, idempotent.EventRecorded, 1)
		got, err := other.Run(w.Context(), "order-1", neverBegun(w))
		require.NoError(w, err)
		assert.Equal(w, "charged", got)
	})
}

// The lease is over before fn could begin: fn does not begin, and the attempt does not count.
func TestFnDoesNotBeginAfterItsLease(t *testing.T) {
	inFakeTime(t, func(w *world) {
		slow := idempotent.ObserverFunc(func(_ context.Context, e idempotent.Event) {
			if e.Kind == idempotent.EventClaimed && e.Attempt == 1 {
				time.Sleep(2 * w.lease)
			}
		})
		x := w.executor(idempotent.WithObserver(slow))
		x.client.AddHook(noRenewals{})
		_, err := x.Run(w.Context(), "order-1", neverBegun(w))
		require.ErrorIs(w, err, idempotent.ErrUnavailable)
		other := w.executor()
		assert.NotZero(w, attemptAfter(w, other, "order-1"))
	})
}

// noRenewals drops the renewals of a client.
type noRenewals struct{ refuse }

func (noRenewals) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, cmds []redis.Cmder) error {
		err := errors.New("dropped")
		for _, cmd := range cmds {
			cmd.SetErr(err)
		}
		return err
	}
}
