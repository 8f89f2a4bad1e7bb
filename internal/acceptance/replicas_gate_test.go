package acceptance

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A gate is what lies between master and replica. While it is shut, nothing gets through that was
// not through before.
type gate struct {
	net.Listener
	mu   sync.Mutex
	open *sync.Cond
	shut bool
	over bool
}

func newGate(t *testing.T, addr string) *gate {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &gate{Listener: l}
	g.open = sync.NewCond(&g.mu)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			replica, err := l.Accept()
			if err != nil {
				return
			}
			master, err := net.Dial("tcp", addr)
			if err != nil {
				_ = replica.Close()
				continue
			}
			running.Go(func() { g.pass(replica, master) })
			running.Go(func() { g.pass(master, replica) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		g.set(func() { g.over = true })
		running.Wait()
	})
	return g
}

func (g *gate) pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 1<<16)
	for {
		_ = from.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // to see that the test is over
		n, err := from.Read(b)
		g.mu.Lock()
		for g.shut && !g.over {
			g.open.Wait()
		}
		over := g.over
		g.mu.Unlock()
		if over {
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
		if timeout, ok := err.(net.Error); err != nil && (!ok || !timeout.Timeout()) {
			return
		}
	}
}

func (g *gate) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
	g.open.Broadcast()
}

func (g *gate) close() { g.set(func() { g.shut = true }) }

func (g *gate) reopen() { g.set(func() { g.shut = false }) }
