package idempotent

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestGate(t *testing.T) {
	t.Run("closed while nobody is inside", func(t *testing.T) {
		g := newGate()
		assert.True(t, g.close())
		<-g.empty
		assert.False(t, g.close())
		assert.False(t, g.enter(false))
		assert.False(t, g.enter(true))
	})
	t.Run("empty when the last has left", func(t *testing.T) {
		g := newGate()
		assert.True(t, g.enter(false))
		assert.True(t, g.close())
		assert.False(t, g.enter(false))
		assert.True(t, g.enter(true))
		g.leave()
		assert.False(t, isClosed(g.empty))
		begun, end := make(chan struct{}), make(chan struct{})
		g.run(func() { close(begun); <-end })
		<-begun
		g.leave()
		assert.False(t, isClosed(g.empty))
		close(end)
		<-g.empty
		assert.False(t, g.enter(true))
	})
	t.Run("many at once", func(t *testing.T) {
		for range 200 {
			g := newGate()
			inside := 0 // -race sees who is inside after the end
			var mu sync.Mutex
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					for g.enter(false) {
						mu.Lock()
						inside++
						mu.Unlock()
						g.leave()
					}
				})
			}
			all.Go(func() {
				g.close()
				<-g.empty
				inside = -1
			})
			all.Wait()
			assert.Equal(t, -1, inside)
		}
	})
}
