package acceptance

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// A twin keeps the first command of its kind about a key, to deliver it once more: as a network does that
// held the first delivery back, while the client sent the command again on another connection.
type twin struct {
	refuse
	name string
	is   func(args []any) bool
	args *[]any
}

func twinOf(name string, is func(args []any) bool) twin {
	return twin{name: name, is: is, args: new([]any)}
}

func (h twin) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		about := false
		for _, a := range cmd.Args() {
			about = about || a == h.name
		}
		if err == nil && about && *h.args == nil && h.is(cmd.Args()) {
			for _, a := range cmd.Args() {
				if b, ok := a.([]byte); ok {
					a = string(b)
				}
				*h.args = append(*h.args, a)
			}
		}
		return err
	}
}

func (h twin) arrives(w *world) {
	w.Helper()
	require.NotEmpty(w, *h.args)
	err := w.client(nil).Do(w.Context(), *h.args...).Err()
	if err != nil {
		require.ErrorIs(w, err, redis.Nil)
	}
}

// isForget tells the script that forgets from the one that reads: it has more arguments.
func isForget(args []any) bool { return strings.HasPrefix(args[0].(string), "eval") && len(args) > 4 }

// A Forget that was sent twice arrives once more when fn has run again and is recorded.
func TestForgetThatArrivesTwice(t *testing.T) {
	everywhere(t, func(w *world) {
		x, operator := w.executor(), w.executor()
		w.record(x, "order-1")
		h := twinOf(w.name("order-1"), isForget)
		operator.client.AddHook(h)
		require.NoError(w, operator.Forget(w.Context(), "order-1"))
		p := w.provider()
		p.answer("charged anew", nil)
		p.answer("charged twice", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged anew")
		h.arrives(w)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged anew")
	})
}

// Somebody runs fn anew when the reply to a Forget is lost. The Forget is sent again, and leaves that alone.
func TestForgetWhoseReplyIsLost(t *testing.T) {
	everywhere(t, func(w *world) {
		x, operator := w.executor(), w.executor()
		require.NoError(w, operator.Forget(w.Context(), "warm")) // the scripts are loaded
		w.record(x, "order-1")
		p := w.provider()
		p.answer("charged anew", nil)
		p.answer("charged twice", nil)
		operator.client.AddHook(&afterRead{do: func() { operator.wire.loseReplyTo("evalsha") }})
		operator.wire.onLost = func() {
			x.start(w.Context(), "order-1", p.charge).returned(w, "charged anew")
		}
		require.NoError(w, operator.Forget(w.Context(), "order-1"))
		require.Equal(w, 1, operator.wire.repliesLost())
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged anew")
	})
}

// A record that changes between the look and the deletion is forgotten as well.
func TestForgetOfWhatIsBeingRecorded(t *testing.T) {
	everywhere(t, func(w *world) {
		x, operator := w.executor(), w.executor()
		p := w.provider()
		first := x.start(w.Context(), "order-1", p.charge)
		<-p.started
		operator.client.AddHook(&afterRead{do: func() {
			p.answer("charged", nil)
			first.returned(w, "charged")
		}})
		require.NoError(w, operator.Forget(w.Context(), "order-1"))
		_, err := operator.Get(w.Context(), "order-1")
		require.ErrorIs(w, err, idempotent.ErrNotFound)
	})
}

// A Forget that fails says so, and one that never reached Redis is repeated.
func TestForgetWithoutRedis(t *testing.T) {
	inFakeTime(t, func(w *world) {
		x, operator := w.executor(), w.executor()
		w.record(x, "order-1")
		operator.client.AddHook(&afterRead{do: func() { operator.wire.loseReplyTo("evalsha") }})
		require.NoError(w, operator.Forget(w.Context(), "order-1"))
		_, err := x.Get(w.Context(), "order-1")
		require.ErrorIs(w, err, idempotent.ErrNotFound)
		operator.wire.sever()
		require.ErrorIs(w, operator.Forget(w.Context(), "order-1"), idempotent.ErrUnavailable)
	})
}

// afterRead does something once when a script has answered.
type afterRead struct {
	refuse
	do   func()
	done atomic.Bool
}

func (h *afterRead) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if isScript := strings.HasPrefix(cmd.Name(), "eval"); isScript && err == nil && h.done.CompareAndSwap(false, true) {
			h.do()
		}
		return err
	}
}
