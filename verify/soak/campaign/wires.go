package campaign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// wires are the proxies between one worker and the servers: one for each server, so that a fault
// of the network is one worker's alone.
type wires struct {
	replaced func(server string) // is told of each proxy that had to be replaced

	mu      sync.Mutex
	proxies map[string]*toxiproxy.Proxy // by the address of the server
}

func newWires(servers []string, replaced func(server string)) (*wires, error) {
	w := &wires{replaced: replaced, proxies: make(map[string]*toxiproxy.Proxy)}
	for _, server := range servers {
		p := newProxy(server, "127.0.0.1:0")
		if err := p.Start(); err != nil {
			w.close()
			return nil, err
		}
		w.proxies[server] = p
	}
	return w, nil
}

func newProxy(server, listen string) *toxiproxy.Proxy {
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	return toxiproxy.NewProxy(api, server, listen, server)
}

func (w *wires) addresses() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	to := make(map[string]string)
	for server, p := range w.proxies {
		to[server] = p.Listen
	}
	return to
}

// A toxic is what Toxiproxy does to what passes in one direction.
type toxic struct {
	Name       string         `json:"name"`
	Type       string         `json:"type"`
	Stream     string         `json:"stream"` // "upstream": what the worker sends
	Toxicity   float32        `json:"toxicity"`
	Attributes map[string]int `json:"attributes"`
}

const toxicName = "soak"

// poison puts a toxic on all wires.
func (w *wires) poison(t toxic) error {
	t.Name = toxicName
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return w.every(func(p *toxiproxy.Proxy) error {
		_, err := p.Toxics.AddToxicJson(bytes.NewReader(text))
		return err
	})
}

// heal takes it away again.
func (w *wires) heal() error {
	return w.every(func(p *toxiproxy.Proxy) error {
		return p.Toxics.RemoveToxic(zerolog.Nop().WithContext(context.Background()), toxicName)
	})
}

// cut closes all connections and refuses new ones; mend takes them again.
func (w *wires) cut() error {
	return w.every(func(p *toxiproxy.Proxy) error { p.Stop(); return nil })
}

func (w *wires) mend() error {
	return w.every(func(p *toxiproxy.Proxy) error { return p.Start() })
}

// proxyLimit is how long a proxy may take to do as it is told.
const proxyLimit = 8 * time.Second

// every tells all proxies. Toxiproxy can lock itself up when a connection ends just as a toxic is
// added or removed; such a proxy is replaced, which to the worker is one more lost connection.
func (w *wires) every(do func(*toxiproxy.Proxy) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	done := make(map[string]chan error)
	for server, p := range w.proxies {
		result := make(chan error, 1)
		done[server] = result
		go func() { result <- do(p) }()
	}
	ctx, cancel := context.WithTimeout(context.Background(), proxyLimit)
	defer cancel()
	var err error
	for server, result := range done {
		select {
		case one := <-result:
			err = errors.Join(err, one)
			continue
		case <-ctx.Done():
		}
		select {
		case one := <-result: // it was in time
			err = errors.Join(err, one)
		default:
			err = errors.Join(err, w.replace(server))
		}
	}
	return err
}

// replace puts a new proxy at the address of one that hangs. The caller holds the mutex.
func (w *wires) replace(server string) error {
	old := w.proxies[server]
	go old.Stop() // it closes its listener first, and may hang then
	w.proxies[server] = newProxy(server, old.Listen)
	w.replaced(server)
	return until(context.Background(), "the address of a proxy to be free", func() (bool, error) {
		err := w.proxies[server].Start()
		return err == nil, err
	})
}

func (w *wires) close() { _ = w.cut() }
