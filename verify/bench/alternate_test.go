package main

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAlternateTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in fake time
		var order []string
		contend := func(name string, each time.Duration) contender {
			return func(n int) error {
				if len(order) == 0 || order[len(order)-1] != name {
					order = append(order, name)
				}
				time.Sleep(time.Duration(n) * each)
				return nil
			}
		}
		times, err := alternate(2, time.Second, contend("a", time.Millisecond), contend("b", 3*time.Millisecond))
		require.NoError(t, err)
		assert.Equal(t, [][]float64{{1e6, 1e6}, {3e6, 3e6}}, times)
		assert.Equal(t, []string{"a", "b", "a", "b", "a", "b"}, order, "calibrated, then two rounds")
	})
}

func TestCalibrateIgnoresAStall(t *testing.T) {
	for _, stalls := range []func(call int) bool{
		func(call int) bool { return call == 1 },
		func(call int) bool { return call > 5 }, // the first try takes five
	} {
		synctest.Test(t, func(t *testing.T) {
			call := 0
			n, err := calibrate(time.Second, func(n int) error {
				if call++; stalls(call) {
					time.Sleep(time.Minute)
				}
				time.Sleep(time.Duration(n) * time.Millisecond)
				return nil
			})
			require.NoError(t, err)
			assert.Equal(t, 1000, n)
		})
	}
}

func TestSpreadSharesAllOperations(t *testing.T) {
	var done [3]atomic.Int64
	require.NoError(t, spread(3, func(worker int) error { done[worker].Add(1); return nil })(11))
	assert.Equal(t, []int64{4, 4, 3}, []int64{done[0].Load(), done[1].Load(), done[2].Load()})
}

func TestAContenderThatFails(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []contender{serial(func() error { return broken }), spread(4, func(int) error { return broken })} {
		_, err := alternate(1, time.Millisecond, c)
		assert.ErrorIs(t, err, broken)
	}
}

func TestInterleaveTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		op := func(name string, takes time.Duration) func() error {
			return func() error {
				order = append(order, name)
				time.Sleep(takes)
				return nil
			}
		}
		times, err := interleave(2, 4*time.Millisecond, op("a", time.Millisecond), op("b", 3*time.Millisecond))
		require.NoError(t, err)
		assert.Equal(t, [][]float64{{1e6, 1e6}, {3e6, 3e6}}, times)
		assert.Equal(t, []string{"a", "b", "a", "b", "a", "b", "a", "b"}, order[len(order)-8:])
	})
	broken := errors.New("broken")
	_, err := interleave(1, time.Millisecond, func() error { return nil }, func() error { return broken })
	assert.ErrorIs(t, err, broken)
}
