package idemtest

import (
	"net"
	"sync"
)

// A bufferedConn takes what is written without waiting for the other side, as a socket does and a
// net.Pipe does not: with a pipe, a pipeline and its replies would wait for each other.
type bufferedConn struct {
	net.Conn
	wake   chan struct{} // there is something to send
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	pending []byte
}

func newBufferedConn(conn net.Conn) *bufferedConn {
	c := &bufferedConn{Conn: conn, wake: make(chan struct{}, 1), closed: make(chan struct{})}
	go c.send()
	return c
}

func (c *bufferedConn) Write(b []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	c.mu.Lock()
	c.pending = append(c.pending, b...)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return len(b), nil
}

// send passes on what was written, until the connection is closed or the other side is gone; its
// reader learns of the latter.
func (c *bufferedConn) send() {
	for {
		select {
		case <-c.closed:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		b := c.pending
		c.pending = nil
		c.mu.Unlock()
		if _, err := c.Conn.Write(b); err != nil {
			return
		}
	}
}

func (c *bufferedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
