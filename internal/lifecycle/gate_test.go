package lifecycle

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestGate(t *testing.T) {
	t.Run("closed while nobody is inside", func(t *testing.T) {
		g := newGate()
		assert.True(t, g.shut())
		<-g.Drained
		assert.False(t, g.shut())
		assert.False(t, g.Enter(false))
		assert.False(t, g.Enter(true))
	})
	t.Run("empty when the last has left", func(t *testing.T) {
		g := newGate()
		assert.True(t, g.Enter(false))
		assert.True(t, g.shut())
		assert.False(t, g.Enter(false))
		assert.True(t, g.Enter(true))
		g.Leave()
		assert.False(t, isClosed(g.Drained))
		begun, end := make(chan struct{}), make(chan struct{})
		g.Go(func() { close(begun); <-end })
		<-begun
		g.Leave()
		assert.False(t, isClosed(g.Drained))
		close(end)
		<-g.Drained
		assert.False(t, g.Enter(true))
	})
	t.Run("many at once", func(t *testing.T) {
		for range 200 {
			g := newGate()
			inside := 0 // -race sees who is inside after the end
			var mu sync.Mutex
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					for g.Enter(false) {
						mu.Lock()
						inside++
						mu.Unlock()
						g.Leave()
					}
				})
			}
			all.Go(func() {
				g.shut()
				<-g.Drained
				inside = -1
			})
			all.Wait()
			assert.Equal(t, -1, inside)
		}
	})
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
