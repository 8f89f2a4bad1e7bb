package pgtest

import (
	"bytes"
	"io"
	"net"
	"sync"
	"time"
)

const dialTimeout = 10 * time.Second

// A Proxy forwards connections to a server that can be changed, and can cut commits off.
type Proxy struct {
	listener net.Listener
	mu       sync.Mutex
	target   string
	conns    map[net.Conn]bool
	cut      func() Cut        // asked at each COMMIT; nil cuts none
	answer   map[net.Conn]bool // whose next answer to COMMIT is cut
	deaf     bool              // drops cancel requests
	done     sync.WaitGroup
}

// A Cut says where a commit is cut off.
type Cut int

const (
	// CutNothing lets it pass.
	CutNothing Cut = iota
	// CutRequest closes the connection before the server gets the COMMIT.
	CutRequest
	// CutAnswer closes the connection to the client when the server has answered.
	CutAnswer
	// CutBoth closes both connections as soon as the server was sent the COMMIT, which it may or may not execute.
	CutBoth
)

// StartProxy starts a proxy of the server at target.
func StartProxy(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, target: target, conns: make(map[net.Conn]bool), answer: make(map[net.Conn]bool)}
	p.done.Go(p.accept)
	return p, nil
}

// Addr returns the address to connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// SetTarget sends new connections to another server, and closes those there are.
func (p *Proxy) SetTarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
	for c := range p.conns {
		_ = c.Close()
	}
}

// SetCut sets what to do with each COMMIT.
func (p *Proxy) SetCut(cut func() Cut) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
}

// DropCancelRequests loses the requests to cancel a statement, which a client sends on a connection of its own when it
// gives a connection up. Without this, the server rolls back a COMMIT that is waiting when its connection is cut.
func (p *Proxy) DropCancelRequests() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = true
}

// Close closes all connections and waits for the proxy's goroutines.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.SetTarget("")
	p.done.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.done.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.DialTimeout("tcp", target, dialTimeout)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	if p.target != target {
		p.mu.Unlock()
		return
	}
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, client)
		delete(p.conns, server)
		delete(p.answer, server)
	}()
	p.done.Go(func() {
		_ = p.requests(client, server)
		_ = server.Close()
		_ = client.Close()
	})
	_ = p.answers(server, client)
}

// commitText is how a COMMIT looks in both directions: the statement in a request, which a client with
// default_query_exec_mode=exec sends each time, and the tag of its answer.
var commitText = []byte("COMMIT\x00")

// cancelRequest is how the only message of a connection begins that cancels another one's statement: its length, 16, and
// its code, 80877102.
var cancelRequest = []byte{0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e}

// requests forwards what the client sends.
func (p *Proxy) requests(client, server net.Conn) error {
	return forward(client, server, func(b []byte) (send, end bool) {
		switch {
		case bytes.HasPrefix(b, cancelRequest):
			drop := p.dropsCancels()
			return !drop, drop
		case !bytes.Contains(b, commitText):
			return true, false
		}
		switch p.next() {
		case CutRequest:
			return false, true
		case CutBoth:
			return true, true
		case CutAnswer:
			p.mu.Lock()
			p.answer[server] = true
			p.mu.Unlock()
		}
		return true, false
	})
}

// answers forwards what the server sends.
func (p *Proxy) answers(server, client net.Conn) error {
	return forward(server, client, func(b []byte) (send, end bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		cut := p.answer[server] && bytes.Contains(b, commitText)
		return !cut, cut
	})
}

func (p *Proxy) next() Cut {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut == nil {
		return CutNothing
	}
	return p.cut()
}

func (p *Proxy) dropsCancels() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deaf
}

// forward copies until a side ends or decide says so.
func forward(from, to net.Conn, decide func([]byte) (send, end bool)) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return err
		}
		send, end := decide(buf[:n])
		if send {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		if end {
			return io.EOF
		}
	}
}
