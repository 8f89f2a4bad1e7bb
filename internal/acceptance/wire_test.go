package acceptance

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// A wire is the network between one client and the server. By default it works.
type wire struct {
	mu       sync.Mutex
	cut      bool
	conns    map[*wiredConn]struct{}
	loseNext string // the reply to the next command that contains this is lost, with its connection
	lost     int
	onLost   func() // called before the connection of a lost reply ends
	refusing bool   // subscriptions are refused
}

var errCut = fmt.Errorf("the wire is cut")

type wiredConn struct {
	net.Conn
	wire   *wire
	losing atomic.Bool // the next reply is lost, and the connection with it
	dead   atomic.Bool
	subs   atomic.Bool // this is a subscription
	mute   atomic.Bool // what comes is dropped
	closed chan struct{}
	once   sync.Once
}

func (w *wire) attach(conn net.Conn) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		_ = conn.Close()
		return nil, &net.OpError{Op: "dial", Err: errCut}
	}
	c := &wiredConn{Conn: conn, wire: w, closed: make(chan struct{})}
	if w.conns == nil {
		w.conns = make(map[*wiredConn]struct{})
	}
	w.conns[c] = struct{}{}
	return c, nil
}

// sever ends all connections and refuses new ones.
func (w *wire) sever() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for c := range w.conns {
		_ = c.Conn.Close()
	}
	w.conns = nil
}

func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = false
}

// loseReplyTo lets the server execute the next command that contains text, and drops the reply.
func (w *wire) loseReplyTo(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loseNext = text
}

// refuseSubscriptions ends the subscriptions and refuses new ones.
func (w *wire) refuseSubscriptions() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusing = true
	for c := range w.conns {
		if c.subs.Load() {
			_ = c.Conn.Close()
		}
	}
}

// muteSubscriptions lets nothing come through the subscriptions that stand.
func (w *wire) muteSubscriptions() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		if c.subs.Load() {
			c.mute.Store(true)
		}
	}
}

func (w *wire) repliesLost() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

func (c *wiredConn) Write(b []byte) (int, error) {
	c.wire.mu.Lock()
	if c.wire.loseNext != "" && strings.Contains(string(b), c.wire.loseNext) {
		c.wire.loseNext = ""
		c.losing.Store(true)
	}
	refusing := c.wire.refusing
	c.wire.mu.Unlock()
	if strings.Contains(string(b), "subscribe") {
		c.subs.Store(true)
		if refusing {
			_ = c.Conn.Close()
			return 0, io.EOF
		}
	}
	return c.Conn.Write(b)
}

func (c *wiredConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *wiredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.losing.CompareAndSwap(true, false) {
		c.wire.mu.Lock()
		c.wire.lost++
		onLost := c.wire.onLost
		c.wire.mu.Unlock()
		if onLost != nil {
			onLost()
		}
		c.dead.Store(true)
		_ = c.Conn.Close()
	}
	if c.dead.Load() {
		return 0, io.EOF
	}
	if c.mute.Load() {
		<-c.closed
		return 0, io.EOF
	}
	return n, err
}
