package acceptance

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// What somebody else put under the name of an operation, or what became of a record, on a real
// server.

// sealed appends a right checksum.
func sealed(body string) string {
	sum := crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli))
	return string(binary.LittleEndian.AppendUint32([]byte(body), sum))
}

// recorded is a finished record as this version writes it.
func recorded(w *world) string {
	w.Helper()
	x := w.executor()
	key := idempotent.HashKey("recorded", w.Name())
	x.start(w.Context(), key, returning(secret, nil)).returned(w, secret)
	raw, err := x.client.Get(w.Context(), w.name(key)).Result()
	require.NoError(w, err)
	return raw
}

// A plant is something that is no record of ours.
type plant func(ctx context.Context, c *redis.Client, name string) error

func text(value string) plant {
	return func(ctx context.Context, c *redis.Client, name string) error {
		return c.Set(ctx, name, value, time.Hour).Err()
	}
}

// otherTypes are what else than a string can have the name.
func otherTypes() map[string]plant {
	return map[string]plant{
		"list": func(ctx context.Context, c *redis.Client, name string) error { return c.RPush(ctx, name, secret).Err() },
		"hash": func(ctx context.Context, c *redis.Client, name string) error {
			return c.HSet(ctx, name, secret, secret).Err()
		},
		"set": func(ctx context.Context, c *redis.Client, name string) error { return c.SAdd(ctx, name, secret).Err() },
		"sorted set": func(ctx context.Context, c *redis.Client, name string) error {
			return c.ZAdd(ctx, name, redis.Z{Score: 1, Member: secret}).Err()
		},
		"stream": func(ctx context.Context, c *redis.Client, name string) error {
			return c.XAdd(ctx, &redis.XAddArgs{Stream: name, Values: []string{"card", secret}}).Err()
		},
	}
}

// strangers are other types, and strings that are no records.
func strangers(w *world) map[string]plant {
	w.Helper()
	good := recorded(w)
	plants := otherTypes()
	for name, value := range map[string]string{
		"empty": "", "number": "4242", "text": "card " + secret, "JSON": `{"card":"` + secret + `"}`,
		"a running record's head": "\x01R" + secret, "sealed text": sealed("card " + secret),
		"sealed kind X": sealed("\x01X" + good[2:len(good)-4]), "record twice": good + good,
		"record and a byte": good + "\x00", "space before a record": " " + good,
	} {
		plants[name] = text(value)
	}
	plants["counting set"] = func(ctx context.Context, c *redis.Client, name string) error {
		return c.PFAdd(ctx, name, secret).Err() // a string, to Redis
	}
	for version := range 256 {
		if byte(version) != good[0] {
			plants[fmt.Sprintf("version %d", version)] = text(sealed(string([]byte{byte(version)}) + good[1:len(good)-4]))
		}
	}
	for n := 1; n < len(good); n++ {
		plants[fmt.Sprintf("first %d bytes", n)] = text(good[:n])
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 100 {
		b := []byte(good)
		for range 1 + random.IntN(4) {
			b[random.IntN(len(b))] ^= byte(1 + random.IntN(255))
		}
		plants[fmt.Sprintf("damaged %d", i)] = text(string(b))
		junk := make([]byte, random.IntN(200))
		for i := range junk {
			junk[i] = byte(random.Uint32())
		}
		plants[fmt.Sprintf("junk %d", i)] = text(string(junk) + secret)
	}
	return plants
}

// A confidant hears what an executor says: in events and the log.
type confidant struct {
	*executor
	said *locked
}

func (w *world) confidant(opts ...idempotent.Option) *confidant {
	w.Helper()
	said, logger := lockedLog()
	c := &confidant{executor: w.executor(append(opts, logger)...), said: said}
	w.Cleanup(func() { keepSecret(w, said, c.Events()) })
	return c
}

// keepSecret checks that nothing quotes a payload.
func keepSecret(t testing.TB, said ...any) {
	t.Helper()
	for _, s := range said {
		if text := fmt.Sprintf("%v %+v", s, s); strings.Contains(text, secret) {
			t.Errorf("the payload shows: %.2000s", text)
		}
	}
}

// operations are all that can be done to a key, but Forget; none may run fn.
func operations(t testing.TB, x *executor) map[string]func(ctx context.Context, key string) error {
	fn := forbidden[string](t)
	return map[string]func(ctx context.Context, key string) error{
		"Run": func(ctx context.Context, key string) error { _, err := x.Run(ctx, key, fn); return err },
		"Run without waiting": func(ctx context.Context, key string) error {
			_, err := x.Run(ctx, key, fn, idempotent.WithNoWait(), idempotent.WithInterrupted(idempotent.Refuse))
			return err
		},
		"Get":     func(ctx context.Context, key string) error { _, err := x.Get(ctx, key); return err },
		"Peek":    func(ctx context.Context, key string) error { _, err := x.Peek(ctx, key); return err },
		"Resolve": func(ctx context.Context, key string) error { return resolve(x, ctx, key, secret) },
	}
}

// What is not a record is an error to everybody, and stays as it is until it is forgotten.
func TestStrangersUnderTheName(t *testing.T) {
	onRealRedis(t, func(w *world) {
		x := w.confidant()
		plants := strangers(w)
		require.Greater(w, len(plants), 500)
		for name, put := range plants {
			require.NoError(w, put(w.Context(), x.client, w.name(name)), name)
			before := x.client.Dump(w.Context(), w.name(name)).Val()
			require.NotEmpty(w, before)
			for op, do := range operations(w, x.executor) {
				err := do(w.Context(), name)
				require.ErrorIs(w, err, idempotent.ErrCorruptRecord, "%s, %s", name, op)
				keepSecret(w, err)
			}
			for len(x.looked) > 0 {
				<-x.looked
			}
			require.Equal(w, before, x.client.Dump(w.Context(), w.name(name)).Val(), name)
			require.NoError(w, x.Forget(w.Context(), name), name)
			x.start(w.Context(), name, returning("charged", nil)).returned(w, "charged")
		}
	})
}

// The record is replaced while somebody owns the operation and somebody waits for it. The waiter
// does not run, and what fn has returned is not lost.
func TestStrangerWhileFnRuns(t *testing.T) {
	for name, put := range map[string]plant{
		"list": otherTypes()["list"], "text": text("card " + secret), "newer version": text(sealed("\x02D" + secret + secret)), "empty": text(""),
	} {
		t.Run(name, func(t *testing.T) {
			onRealRedis(t, func(w *world) {
				owner, other := w.confidant(), w.confidant()
				p := w.provider()
				first := owner.start(w.Context(), "order-1", p.charge)
				<-p.started
				waiting := other.start(w.Context(), "order-1", forbidden[string](w))
				other.waits(w)
				before := w.replace(owner.client, "order-1", put)
				require.NoError(w, owner.client.Publish(w.Context(), w.name("order-1"), "G").Err())
				waiting.wait(w)
				require.ErrorIs(w, waiting.err, idempotent.ErrCorruptRecord)
				owner.Wait(w, idempotent.EventLeaseLost, 1)
				p.answer(secret, nil)
				first.wait(w)
				require.Equal(w, secret, first.value)
				keepSecret(w, first.err, waiting.err)
				assert.Equal(w, 1, p.count())
				after := owner.client.Dump(w.Context(), w.name("order-1")).Val()
				switch name {
				case "list":
					require.ErrorIs(w, first.err, idempotent.ErrNotRecorded)
				case "empty": // nobody's, so the outcome is stored after all
					require.NoError(w, first.err)
					other.start(w.Context(), "order-1", forbidden[string](w)).returned(w, secret)
					return
				default:
					require.ErrorIs(w, first.err, idempotent.ErrLeaseLost)
				}
				require.Equal(w, before, after)
			})
		})
	}
}

// replace puts something in the place of a record, and returns how the server describes it.
func (w *world) replace(client *redis.Client, key string, put plant) string {
	w.Helper()
	require.NoError(w, client.Del(w.Context(), w.name(key)).Err())
	require.NoError(w, put(w.Context(), client, w.name(key)))
	return client.Dump(w.Context(), w.name(key)).Val()
}

// The record of a dead owner is replaced just before it is taken over.
func TestStrangerJustBeforeTheTakeOver(t *testing.T) {
	takeOver := scriptHash(t, "takeover")
	plants := otherTypes()
	plants["text"], plants["newer version"], plants["empty"] = text("card "+secret), text(sealed("\x02D"+secret+secret)), text("")
	for name, put := range plants {
		for policy, interrupted := range map[string]idempotent.InterruptedPolicy{"rerun": idempotent.Rerun, "refuse": idempotent.Refuse} {
			t.Run(name+", "+policy, func(t *testing.T) {
				onRealRedis(t, func(w *world) {
					owner, other := w.confidant(), w.confidant(idempotent.WithInterrupted(interrupted))
					unknown := idempotent.OutcomeUnknown(context.DeadlineExceeded)
					owner.start(w.Context(), "order-1", returning("", unknown)).wait(w)
					var before string
					other.client.AddHook(&beforeScript{hash: takeOver, do: func() { before = w.replace(owner.client, "order-1", put) }})
					second := other.start(w.Context(), "order-1", forbidden[string](w)).wait(w)
					require.ErrorIs(w, second.err, idempotent.ErrCorruptRecord)
					require.NotEmpty(w, before, "there was a take-over")
					require.Equal(w, before, owner.client.Dump(w.Context(), w.name("order-1")).Val())
					keepSecret(w, second.err)
				})
			})
		}
	}
}

// FuzzStrangersUnderTheName plants bytes, sealed or not. Of what they can be, only the record of an
// owner whose lease is over lets fn run.
func FuzzStrangersUnderTheName(f *testing.F) {
	f.Add("", false)
	f.Add("\x01D"+secret, true)
	f.Add("\x01R"+strings.Repeat("t", 16)+"\x00\x01\x01\x00\x01\x01", true)
	f.Add("\x01D"+strings.Repeat("t", 16)+"\x01\x01\x01\x00\x01\xa4"+secret, true)
	f.Add("\x01D"+strings.Repeat("t", 16)+"\x02\x01\x01\x00\x01\xa4"+secret, true)
	f.Add("\x01D"+strings.Repeat("t", 16)+"\x03\x01\x01\x00\x01\xa4"+secret, true)
	f.Add("\x01D"+strings.Repeat("t", 16)+"\x04\x01\x01\x00\x01", true)
	options, err := redis.ParseURL(redistest.URL(f))
	require.NoError(f, err)
	client := redis.NewClient(options)
	f.Cleanup(func() { _ = client.Close() })
	f.Fuzz(func(t *testing.T, body string, seal bool) {
		ctx := t.Context()
		if seal {
			body = sealed(body)
		}
		x, err := idempotent.New[string](client, "fuzz", idempotent.WithTTL(time.Minute))
		require.NoError(t, err)
		defer x.Close()
		key := idempotent.HashKey(t.Name(), body)
		name := "idempotent:fuzz:" + key
		require.NoError(t, client.Set(ctx, name, body, time.Minute).Err())
		defer client.Del(ctx, name)
		status, peekErr := x.Peek(ctx, key)
		ran := false
		_, err = x.Run(ctx, key, func(context.Context) (string, error) { ran = true; return "charged", nil }, idempotent.WithNoWait())
		require.Equal(t, peekErr == nil && status.State == idempotent.StateAbandoned && err == nil, ran, "Peek: %v %v, Run: %v", status, peekErr, err)
		if peekErr != nil {
			require.ErrorIs(t, peekErr, idempotent.ErrCorruptRecord)
			require.ErrorIs(t, err, idempotent.ErrCorruptRecord)
		}
		_, _ = x.Get(ctx, key, idempotent.WithNoWait())
		_ = resolve(x, ctx, key, "settled")
		require.NoError(t, x.Forget(ctx, key))
	})
}
