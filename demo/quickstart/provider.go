package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

const (
	// Not "Idempotency-Key": net/http repeats a POST with that header by itself when a connection
	// breaks, and this provider charges twice when asked twice.
	referenceHeader = "X-Reference"
	workerHeader    = "X-Worker"

	// holdLimit is how long the provider withholds an answer at most.
	holdLimit = 5 * time.Second
)

// A provider takes money, over HTTP. It lives in the parent, so that its books survive a worker
// and count what really happened. It is of the worst kind: asked twice, it charges twice. All it
// offers is to say whether it knows a reference.
type provider struct {
	url  string
	out  *stage.Narrator
	stop func()

	mu       sync.Mutex
	accounts map[string]*account // by reference
	numbered int
}

// An account is what the provider knows of one reference. The provider's mutex guards it.
type account struct {
	manner
	books
	asked chan int // the worker that asked for a charge, once that is booked
}

// A manner is how the provider behaves.
type manner struct {
	declines   string          // why the card is declined, if it is
	failsFirst int             // that many requests get a 503, and nothing is booked
	until      <-chan struct{} // not to answer before this is closed, if not nil
}

// The books are what a scene is judged by.
type books struct {
	Requests int      // to take the money
	LookUps  int      // whether it was taken
	Charges  []Charge // money that was taken
}

func startProvider(out *stage.Narrator) (*provider, error) {
	p := &provider{out: out, accounts: make(map[string]*account)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /charges", p.charge)
	mux.HandleFunc("GET /charges", p.look)
	var err error
	p.url, p.stop, err = stage.ServeHTTP(mux, func(err error) { out.Say("the provider broke down: %v", err) })
	if err != nil {
		return nil, fmt.Errorf("starting the payment provider: %w", err)
	}
	return p, nil
}

// open makes an account; the provider knows no others.
func (p *provider) open(reference string, m manner) *account {
	a := &account{manner: m, asked: make(chan int, 1)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accounts[reference] = a
	return a
}

// read returns a copy of an account's books.
func (p *provider) read(a *account) books {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := a.books
	b.Charges = slices.Clone(b.Charges)
	return b
}

// A decision is the provider's answer to a request for money.
type decision struct {
	status int
	body   any
	text   string // for the audience
}

// charge decides and books at once, and answers later: a caller that is killed in between has
// paid all the same.
func (p *provider) charge(w http.ResponseWriter, r *http.Request) {
	var o Order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		http.Error(w, "not an order", http.StatusBadRequest)
		return
	}
	a, d := p.decide(r.Header.Get(referenceHeader), o)
	if a == nil {
		http.Error(w, "unknown reference", http.StatusBadRequest)
		return
	}
	worker, _ := strconv.Atoi(r.Header.Get(workerHeader))
	p.out.Say("provider: worker %d asks for %s; %s", worker, stage.Euros(o.Cents), d.text)
	a.tell(worker)
	a.dawdle(r.Context())
	stage.Respond(w, d.status, d.body)
}

func (p *provider) decide(reference string, o Order) (*account, decision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.accounts[reference]
	if a == nil {
		return nil, decision{}
	}
	a.Requests++
	p.numbered++
	switch {
	case a.Requests <= a.failsFirst:
		return a, decision{http.StatusServiceUnavailable, nil, "answers 503, try again, nothing was charged"}
	case a.declines != "":
		declined := CardError{Reason: a.declines, Request: fmt.Sprintf("req_%d", p.numbered)}
		return a, decision{http.StatusPaymentRequired, declined, "the bank declines: " + a.declines}
	}
	charge := Charge{ID: fmt.Sprintf("ch_%d", p.numbered), Cents: o.Cents}
	a.Charges = append(a.Charges, charge)
	return a, decision{http.StatusOK, charge, "the money is taken, as " + charge.ID}
}

// tell lets a scene know who asked, if it still listens.
func (a *account) tell(worker int) {
	select {
	case a.asked <- worker:
	default:
	}
}

// dawdle is the time that a provider takes.
func (a *account) dawdle(ctx context.Context) {
	sleep(ctx, providerTakes)
	if a.until == nil {
		return
	}
	select {
	case <-a.until:
	case <-time.After(holdLimit):
	case <-ctx.Done():
	}
}

// look says whether money was taken under a reference.
func (p *provider) look(w http.ResponseWriter, r *http.Request) {
	worker := r.Header.Get(workerHeader)
	charge, found := p.lookUp(r.Header.Get(referenceHeader))
	if !found {
		p.out.Say("provider: worker %s asks whether the money was taken: no", worker)
		http.Error(w, "unknown reference", http.StatusNotFound)
		return
	}
	p.out.Say("provider: worker %s asks whether the money was taken: yes, as %s", worker, charge.ID)
	stage.Respond(w, http.StatusOK, charge)
}

func (p *provider) lookUp(reference string) (charge Charge, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.accounts[reference]
	if a == nil {
		return Charge{}, false
	}
	a.LookUps++
	if len(a.Charges) == 0 {
		return Charge{}, false
	}
	return a.Charges[0], true
}

// sleep returns after d, or when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
