package behaviour

import (
	"context"
	"strings"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// keys lie on several slots and shards.
func keys(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = idempotent.HashKey("order", string(rune(i)))
	}
	return out
}

func oneRuns(s *scene) {
	owner, other := s.pair()
	p := s.provider()
	orders := keys(20)
	var owning, waiting []*call
	for _, key := range orders {
		owning = append(owning, owner.start(s.Context(), key, p.charge))
		p.begun(1)
	}
	for _, key := range orders {
		waiting = append(waiting, other.start(s.Context(), key, s.mustNotRun))
	}
	other.Wait(s, idempotent.EventWaitStarted, len(orders))
	for range orders {
		p.answer("charged", nil)
	}
	for i, key := range orders {
		owning[i].returned(s, "charged", idempotent.Executed, 1)
		waiting[i].returned(s, "charged", idempotent.Waited, 1)
		for _, x := range []*executor{owner, other} {
			x.start(s.Context(), key, s.mustNotRun).returned(s, "charged", idempotent.Replayed, 1)
		}
	}
	p.called(20)
}

// storm is many callers at once, most of them before there is anything to see.
func storm(s *scene) {
	x, y := s.pair()
	var runs atomic.Int64
	var calls []*call
	for _, key := range keys(10) {
		for range 10 {
			for _, x := range []*executor{x, y} {
				calls = append(calls, x.start(s.Context(), key, func(context.Context) (string, error) {
					runs.Add(1)
					return "charged", nil
				}))
			}
		}
	}
	for _, c := range calls {
		c.got(s, "charged")
	}
	require.EqualValues(s, 10, runs.Load())
}

func join(s *scene) {
	x := s.executor(s.one)
	p := s.provider()
	first := x.start(s.Context(), "order-1", p.charge)
	p.begun(1)
	var joined []*call
	for range 50 {
		joined = append(joined, x.start(s.Context(), "order-1", s.mustNotRun))
	}
	x.Wait(s, idempotent.EventJoined, len(joined))
	p.answer("charged", nil)
	first.returned(s, "charged", idempotent.Executed, 1)
	for _, c := range joined {
		c.returned(s, "charged", idempotent.Joined, 1)
	}
}

// renew: a function may take longer than its lease.
func renew(s *scene) {
	owner, other := s.pair(idempotent.WithLease(shortLease))
	p := s.provider()
	orders := keys(20)
	var calls []*call
	for _, key := range orders {
		calls = append(calls, owner.start(s.Context(), key, p.charge))
		p.begun(1)
	}
	waiting := other.start(s.Context(), orders[0], s.mustNotRun)
	owner.Wait(s, idempotent.EventRenewed, 4*len(orders)) // one each third of the lease
	status, err := other.Peek(s.Context(), orders[0])
	require.NoError(s, err)
	require.Equal(s, idempotent.StateRunning, status.State)
	require.Greater(s, status.Age, shortLease)
	for range orders {
		p.answer("charged", nil)
	}
	for _, c := range calls {
		c.returned(s, "charged", idempotent.Executed, 1)
	}
	waiting.returned(s, "charged", idempotent.Waited, 1)
	require.Zero(s, owner.Count(idempotent.EventLeaseLost))
}

// everyByte has every byte once.
var everyByte = func() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}()

func values(s *scene) {
	owner, other := s.pair()
	for key, value := range map[string]string{
		"empty":      "",
		"zero":       "0",
		"nil":        "nil",
		"every byte": everyByte,
		"long":       strings.Repeat(everyByte, 1<<12), // 1 MiB
	} {
		returns := func(context.Context) (string, error) { return value, nil }
		owner.start(s.Context(), key, returns).returned(s, value, idempotent.Executed, 1)
		other.start(s.Context(), key, s.mustNotRun).returned(s, value, idempotent.Replayed, 1)
		other.startGet(s.Context(), key).returned(s, value, idempotent.Replayed, 1)
	}
}

// largeValues are more than a message carries.
func largeValues(s *scene) {
	owner, other := s.pair()
	p := s.provider()
	large := strings.Repeat(everyByte, 2*idempotent.DefaultMessageLimit/len(everyByte))
	first := owner.start(s.Context(), "order-1", p.charge)
	p.begun(1)
	waiting := other.start(s.Context(), "order-1", s.mustNotRun)
	other.looked(s, "order-1")
	p.answer(large, nil)
	first.returned(s, large, idempotent.Executed, 1)
	waiting.returned(s, large, idempotent.Waited, 1)
}

func strangeKeys(s *scene) {
	owner, other := s.pair()
	p := s.provider()
	strange := []string{
		everyByte, "\x00", "\r\n", " ", "*", "?", ":", "{", "}", "{}", "{a}b", "a:b", "\xff\xfe", `"`, "ключ",
		strings.Repeat("k", idempotent.MaxKeySize),
	}
	for i, key := range strange {
		first := owner.start(s.Context(), key, p.charge)
		p.begun(1)
		waiting := other.start(s.Context(), key, s.mustNotRun)
		other.Wait(s, idempotent.EventWaitStarted, i+1)
		p.answer(key, nil)
		first.returned(s, key, idempotent.Executed, 1)
		waiting.returned(s, key, idempotent.Waited, 1)
	}
	for _, key := range strange {
		other.start(s.Context(), key, s.mustNotRun).returned(s, key, idempotent.Replayed, 1)
	}
}

// impatient callers are told how long the owner has.
func impatient(s *scene) {
	owner, other := s.pair()
	p := s.provider()
	first := owner.start(s.Context(), "order-1", p.charge)
	p.begun(1)
	for _, x := range []*executor{owner, other} {
		for _, patience := range []idempotent.RunOption{idempotent.WithNoWait(), idempotent.WithWaitTimeout(1)} {
			c := x.start(s.Context(), "order-1", s.mustNotRun, patience)
			c.failed(s, idempotent.ErrInProgress)
		}
	}
	_, err := other.Run(s.Context(), "order-1", s.mustNotRun, idempotent.WithNoWait())
	busy := new(idempotent.InProgressError)
	require.ErrorAs(s, err, &busy)
	require.Positive(s, busy.RetryAfter)
	require.LessOrEqual(s, busy.RetryAfter, lease)
	p.answer("charged", nil)
	first.returned(s, "charged", idempotent.Executed, 1)
	other.start(s.Context(), "order-1", s.mustNotRun, idempotent.WithNoWait()).returned(s, "charged", idempotent.Replayed, 1)
}
