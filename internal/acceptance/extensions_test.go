package acceptance

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/record"
)

// A later version of this library adds a field to records. Code that does not know the field works with
// them, and keeps it.

const laterField = record.Field(200)

func laterExtensions() record.Extensions {
	return record.Extensions(nil).With(record.FieldOwner, []byte("later:1")).With(laterField, []byte("later"))
}

// laterRunning stores a running record of the later version under key, whose lease ends in left.
func (w *world) laterRunning(x *executor, key string, left time.Duration) *record.Record {
	w.Helper()
	rec := &record.Record{
		Kind: record.KindRunning, Token: record.NewToken(), Attempt: 1, At: time.Now(),
		Lease: w.lease, Retention: time.Hour, Extensions: laterExtensions(),
	}
	require.NoError(w, x.client.Set(w.Context(), w.name(key), rec.Encode(), rec.Retention+left).Err())
	return rec
}

// laterDone is the outcome of rec.
func laterDone(rec *record.Record) []byte {
	done := &record.Record{
		Kind: record.KindDone, Token: rec.Token, Attempt: rec.Attempt, At: time.Now(),
		Outcome: record.OutcomeValue, Codec: record.CodecMsgpack, Payload: []byte("\xa7charged"), Extensions: laterExtensions(),
	}
	return done.Encode()
}

// extensionsOf returns those of what is stored under key.
func (w *world) extensionsOf(x *executor, key string) record.Extensions {
	w.Helper()
	raw, err := x.client.Get(w.Context(), w.name(key)).Bytes()
	require.NoError(w, err)
	rec, err := record.Decode(raw)
	require.NoError(w, err)
	return rec.Extensions
}

func TestRecordWithUnknownFieldIsReplayed(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor()
		rec := w.laterRunning(x, "order-1", w.lease)
		require.NoError(w, x.client.Set(w.Context(), w.name("order-1"), laterDone(rec), time.Hour).Err())
		c := x.start(w.Context(), "order-1", forbidden[string](w))
		c.returned(w, "charged")
		assert.Equal(w, idempotent.Replayed, c.report.Source)
		assert.Equal(w, laterExtensions(), w.extensionsOf(x, "order-1"))
	})
}

func TestRecordWithUnknownFieldIsWaitedFor(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithLease(time.Minute))
		rec := w.laterRunning(x, "order-1", time.Minute)
		c := x.start(w.Context(), "order-1", forbidden[string](w))
		x.waits(w)
		done := laterDone(rec)
		require.NoError(w, x.client.Set(w.Context(), w.name("order-1"), done, time.Hour).Err())
		require.NoError(w, x.client.Publish(w.Context(), w.name("order-1"), "R"+string(done)).Err())
		c.returned(w, "charged")
		assert.Equal(w, idempotent.Waited, c.report.Source)
	})
}

func TestUnknownFieldOutlivesTakeOver(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithOwner("me"), idempotent.WithShouldIgnoreError(idempotent.IsRetryable))
		w.laterRunning(x, "order-1", 0)
		p := w.provider()
		running := x.start(w.Context(), "order-1", p.charge)
		<-p.started
		assert.Equal(w, 2, p.last().Attempt)
		mine := record.Extensions(nil).With(record.FieldOwner, []byte("me")).With(laterField, []byte("later"))
		assert.Equal(w, mine, w.extensionsOf(x, "order-1"), "the owner is another one, the field stays")

		p.answer("", idempotent.Retryable(errors.New("busy")))
		require.Error(w, running.wait(w).err)
		assert.Equal(w, mine, w.extensionsOf(x, "order-1"), "released, with the attempt number")

		p.answer("charged", nil)
		x.start(w.Context(), "order-1", p.charge).returned(w, "charged")
		assert.Equal(w, mine.Without(record.FieldOwner), w.extensionsOf(x, "order-1"), "recorded")
	})
}

func TestUnknownFieldOutlivesRefusalAndResolve(t *testing.T) {
	everywhere(t, func(w *world) {
		x := w.executor(idempotent.WithInterrupted(idempotent.Refuse))
		w.laterRunning(x, "order-1", 0)
		_, err := x.Run(w.Context(), "order-1", forbidden[string](w))
		require.ErrorIs(w, err, idempotent.ErrInterrupted)
		assert.Equal(w, laterExtensions(), w.extensionsOf(x, "order-1"), "with the owner that was interrupted")
		was, err := x.Resolve(w.Context(), "order-1", "charged")
		require.NoError(w, err)
		assert.Equal(w, "later:1", was.Owner)
		assert.Equal(w, laterExtensions().Without(record.FieldOwner), w.extensionsOf(x, "order-1"))
		x.start(w.Context(), "order-1", forbidden[string](w)).returned(w, "charged")
	})
}

func TestRunningRecordNamesItsOwner(t *testing.T) {
	everywhere(t, func(w *world) {
		named, other := w.executor(idempotent.WithOwner("billing 7")), w.executor()
		for _, x := range []*executor{named, other} {
			p := w.provider()
			key := fmt.Sprintf("order-%p", x)
			c := x.start(w.Context(), key, p.charge)
			<-p.started
			s, err := other.Peek(w.Context(), key)
			require.NoError(w, err)
			if x == named {
				assert.Equal(w, "billing 7", s.Owner)
			} else {
				assert.Truef(w, strings.HasSuffix(s.Owner, fmt.Sprintf(":%d", os.Getpid())), "host:pid, not %q", s.Owner)
			}
			p.answer("charged", nil)
			c.returned(w, "charged")
			s, err = other.Peek(w.Context(), key)
			require.NoError(w, err)
			assert.Empty(w, s.Owner, "there is no owner of an outcome")
		}
	})
}
