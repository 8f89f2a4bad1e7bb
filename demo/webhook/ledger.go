package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

// A ledger is where effects are seen. It lives in the parent, is used over HTTP, and makes a credit
// for each request: whoever asks twice has credited twice.
type ledger struct {
	url string

	mu      sync.Mutex
	manners map[string]*manner // by order; none for most
	asked   map[string][]time.Time
	lookups map[string]int
	made    []change
	byRef   map[string]change
}

// A manner is how the ledger deals with the requests for an order.
type manner struct {
	unknown bool // the order: 422
	fails   int  // so many times: 503
	// hang: the first request gets no answer, and is made or not.
	hang, hangMade bool
	hanging        chan struct{} // closed then
}

func newLedger() *ledger {
	return &ledger{
		manners: make(map[string]*manner),
		asked:   make(map[string][]time.Time),
		lookups: make(map[string]int),
		byRef:   make(map[string]change),
	}
}

// start returns how to stop it.
func (l *ledger) start() (stop func(), err error) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /credits", l.credit)
	mux.HandleFunc("GET /credits/{reference}", l.find)
	l.url, stop, err = stage.ServeHTTP(mux, func(error) {}) // the endpoint will tell
	return stop, err
}

// behave sets how the requests for an order are dealt with from now on; nil for as usual.
func (l *ledger) behave(order string, m *manner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.manners[order] = m
}

func (l *ledger) credit(w http.ResponseWriter, r *http.Request) {
	var c credit
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	status, made, hanging := l.decide(c)
	if hanging != nil {
		close(hanging)
		<-r.Context().Done() // until the one who asked is gone
		return
	}
	w.WriteHeader(status)
	if status == http.StatusOK {
		_ = json.NewEncoder(w).Encode(made)
	}
}

func (l *ledger) decide(c credit) (status int, made change, hanging chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked[c.Order] = append(l.asked[c.Order], time.Now())
	switch m := l.manners[c.Order]; {
	case m == nil:
	case m.unknown:
		return http.StatusUnprocessableEntity, made, nil
	case len(l.asked[c.Order]) <= m.fails:
		return http.StatusServiceUnavailable, made, nil
	case m.hang:
		m.hang, hanging = false, m.hanging
		if !m.hangMade {
			return 0, made, hanging
		}
	}
	made = change{Order: c.Order, Cents: c.Cents, Credit: fmt.Sprintf("cr_%d", len(l.made)+1)}
	l.made = append(l.made, made)
	l.byRef[c.Reference] = made
	return http.StatusOK, made, hanging
}

func (l *ledger) find(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	reference := r.PathValue("reference")
	l.lookups[reference]++
	made, ok := l.byRef[reference]
	if !ok {
		http.Error(w, "no such credit", http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(made)
}

// Books are what the ledger has seen.
type books struct {
	credits map[string]int         // by order
	asked   map[string][]time.Time // requests for a credit, by order
	lookups map[string]int         // questions, by reference
}

func (l *ledger) read() books {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := books{credits: make(map[string]int), asked: make(map[string][]time.Time), lookups: maps.Clone(l.lookups)}
	for _, c := range l.made {
		b.credits[c.Order]++
	}
	for order, times := range l.asked {
		b.asked[order] = slices.Clone(times)
	}
	return b
}

// total is the number of all credits.
func (b *books) total() (n int) {
	for _, credits := range b.credits {
		n += credits
	}
	return n
}

// twice is the number of orders that were credited more than once.
func (b *books) twice() (n int) {
	for _, credits := range b.credits {
		if credits > 1 {
			n++
		}
	}
	return n
}
