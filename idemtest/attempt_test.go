package idemtest_test

import (
	"context"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

func attemptOf(ctx context.Context) (int, error) {
	info, _ := idempotent.RunInfoFromContext(ctx)
	return info.Attempt, nil
}

func TestRunAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for attempt := 1; attempt <= 3; attempt++ {
			got, err := idemtest.RunAttempt(t.Context(), t, attempt, attemptOf)
			require.NoError(t, err)
			assert.Equal(t, attempt, got)
		}
	})
}

func TestInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := idempotent.New[int](idemtest.NewRedis(t), "ns")
		require.NoError(t, err)
		defer e.Close()
		idemtest.Interrupt(t.Context(), t, e, "key")
		got, err := e.Run(t.Context(), "key", attemptOf)
		require.NoError(t, err)
		assert.Equal(t, 2, got)

		idemtest.Interrupt(t.Context(), t, e, "refused", idempotent.WithInterrupted(idempotent.Refuse))
		_, err = e.Run(t.Context(), "refused", attemptOf)
		require.ErrorIs(t, err, idempotent.ErrInterrupted)

		w := &witness{TB: t}
		w.attend(func() { idemtest.Interrupt(t.Context(), w, e, "key") })
		assert.Contains(t, w.fatal, "cannot be interrupted", "it has an outcome")
	})
}

func TestWithRunInfo(t *testing.T) {
	var ended context.Context
	t.Run("a test", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			want := idempotent.RunInfo{Namespace: "payments", Key: "order-1", Attempt: 3}
			ctx := idemtest.WithRunInfo(t.Context(), t, want)
			got, ok := idempotent.RunInfoFromContext(ctx)
			require.True(t, ok)
			assert.Equal(t, want, got)
			require.NoError(t, ctx.Err())
			ended = ctx

			got, _ = idempotent.RunInfoFromContext(idemtest.WithRunInfo(t.Context(), t, idempotent.RunInfo{}))
			assert.Equal(t, idempotent.RunInfo{Namespace: "idemtest", Key: "key", Attempt: 1}, got)
		})
	})
	assert.Error(t, ended.Err(), "it ends with the test")

	w := &witness{TB: t}
	w.attend(func() { idemtest.WithRunInfo(t.Context(), w, idempotent.RunInfo{Namespace: "not allowed"}) })
	assert.Contains(t, w.fatal, "not allowed")
}

func TestRedisFailsOnCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		rdb.FailOn(func(command string, args []string) bool { return command == "SET" && slices.Contains(args, "a") }, "ERR no more room")
		require.EqualError(t, rdb.Set(t.Context(), "a", "value", time.Hour).Err(), "ERR no more room")
		require.NoError(t, rdb.Set(t.Context(), "b", "value", time.Hour).Err())
		require.EqualError(t, rdb.Get(t.Context(), "a").Err(), "redis: nil", "another command")
		rdb.FailOn(nil, "")
		require.NoError(t, rdb.Set(t.Context(), "a", "value", time.Hour).Err())
	})
}

// A scaled number equals another one of another scale.
type scaled struct{ Digits, Scale int }

func (s scaled) Equal(other scaled) bool {
	return float64(s.Digits)/math.Pow10(s.Scale) == float64(other.Digits)/math.Pow10(other.Scale)
}

type rescaling[T any] struct {
	idempotent.Codec[T]
	change func(*T)
}

func (c rescaling[T]) Decode(data []byte) (T, error) {
	v, err := c.Codec.Decode(data)
	c.change(&v)
	return v, err
}

func TestCodecRoundTripComparesAsAUserWould(t *testing.T) {
	idemtest.CodecRoundTrip(t, idempotent.Msgpack[time.Time](), time.Now(), time.Time{})
	idemtest.CodecRoundTrip(t, idempotent.JSON[*time.Time](), new(time.Now()), nil)
	idemtest.CodecRoundTrip(t, idempotent.Msgpack[map[string]float64](), map[string]float64{"a": math.NaN()})
	rescale := rescaling[[]scaled]{idempotent.JSON[[]scaled](), func(v *[]scaled) { (*v)[0] = scaled{10, 1} }}
	idemtest.CodecRoundTrip(t, rescale, []scaled{{1, 0}})
	message := rescaling[*timestamppb.Timestamp]{idempotent.JSON[*timestamppb.Timestamp](), func(v **timestamppb.Timestamp) { *v = &timestamppb.Timestamp{Seconds: 1} }}
	sized := &timestamppb.Timestamp{Seconds: 1}
	_ = sized.String() // which fills in what is not part of the message
	idemtest.CodecRoundTrip(t, message, sized)

	w := &witness{TB: t}
	idemtest.CodecRoundTrip(w, rescale, []scaled{{2, 0}})
	idemtest.CodecRoundTrip(w, message, &timestamppb.Timestamp{Seconds: 2})
	require.Len(t, w.errors, 2)
	assert.Contains(t, w.errors[0], "[] is another idemtest_test.scaled")
	assert.Contains(t, w.errors[1], "is another *timestamppb.Timestamp")
}
