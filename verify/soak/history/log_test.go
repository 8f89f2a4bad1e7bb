package history_test

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// Many workers write at once, one of them dies in the middle of a line: the history has every
// event that was acknowledged, numbered in the order of their times, and no other.
func TestHistoryOfManyWorkers(t *testing.T) {
	dir := t.TempDir()
	path, address := filepath.Join(dir, "history"), filepath.Join(dir, "provider")
	heard := 0
	log, err := history.Create(path, func(history.Event) { heard++ })
	require.NoError(t, err)
	listener, err := net.Listen("unix", address)
	require.NoError(t, err)
	served := make(chan struct{})
	go func() { defer close(served); log.Serve(listener) }()

	const workers, each = 4, 50
	var all sync.WaitGroup
	for w := range workers {
		rec, err := history.Dial(address, "single", fmt.Sprint(w))
		require.NoError(t, err)
		all.Go(func() {
			for i := range each {
				rec.Record(history.Event{Kind: history.Step, Call: fmt.Sprint(i)})
			}
			assert.NoError(t, rec.Close())
		})
	}
	dying, err := net.Dial("unix", address)
	require.NoError(t, err)
	_, err = io.WriteString(dying, `{"kind":"en`)
	require.NoError(t, err)
	require.NoError(t, dying.Close())
	all.Wait()
	require.NoError(t, listener.Close())
	<-served
	require.NoError(t, log.Close())

	events, err := history.Read(path)
	require.NoError(t, err)
	require.Len(t, events, workers*each)
	assert.Equal(t, workers*each, heard)
	next := make(map[string]int)
	for i, e := range events {
		assert.EqualValues(t, i+1, e.Seq)
		assert.Equal(t, fmt.Sprint(next[e.Proc]), e.Call, "a worker's events are in its order")
		next[e.Proc]++
		if i > 0 {
			assert.GreaterOrEqual(t, e.At, events[i-1].At)
		}
	}
}

func TestHistoryIsNotOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	log, err := history.Create(path, nil)
	require.NoError(t, err)
	require.NoError(t, log.Close())
	_, err = history.Create(path, nil)
	require.Error(t, err)
}
