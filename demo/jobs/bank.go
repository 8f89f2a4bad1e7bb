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

// holdLimit is how long the bank withholds an answer at most.
const holdLimit = 10 * time.Second

// A bank pays refunds, over HTTP. It lives in the parent, so that its books survive a worker and
// count what really happened. It is of the worst kind: asked twice, it pays twice. All it offers is
// to say whether it knows a reference.
type bank struct {
	url  string
	out  *stage.Narrator
	stop func()

	mu       sync.Mutex
	accounts map[string]*account // by reference
	numbered int
}

// An account is what the bank knows of one reference. The bank's mutex guards its books.
type account struct {
	manner
	books
	asked chan int // the worker that asked for a refund, once that is booked
}

// A manner is how the bank behaves.
type manner struct {
	refuses    string          // why it will not pay, if it will not
	failsFirst int             // that many requests get a 503, and nothing is paid
	mute       int             // that many requests are paid and not answered: the caller gives up
	cuts       int             // that many are paid, and then the connection breaks
	until      <-chan struct{} // not to answer before this is closed, if not nil
}

// The books are what a scene is judged by.
type books struct {
	Requests int       // to pay
	LookUps  int       // whether it has paid
	Receipts []Receipt // what it has paid
}

func startBank(out *stage.Narrator) (*bank, error) {
	b := &bank{out: out, accounts: make(map[string]*account)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /refunds", b.refund)
	mux.HandleFunc("GET /refunds", b.look)
	var err error
	b.url, b.stop, err = stage.ServeHTTP(mux, func(err error) { out.Say("the bank broke down: %v", err) })
	if err != nil {
		return nil, fmt.Errorf("starting the bank: %w", err)
	}
	return b, nil
}

// open makes an account; the bank knows no others.
func (b *bank) open(reference string, m manner) *account {
	a := &account{manner: m, asked: make(chan int, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.accounts[reference] = a
	return a
}

// read returns a copy of an account's books.
func (b *bank) read(a *account) books {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := a.books
	seen.Receipts = slices.Clone(seen.Receipts)
	return seen
}

// A decision is the bank's answer to a request to pay.
type decision struct {
	status int
	body   any
	text   string // for the audience
	mute   bool   // the answer never comes
	cut    bool   // the connection breaks instead
}

// refund decides and pays at once, and answers later: a caller that is killed in between has been
// served all the same.
func (b *bank) refund(w http.ResponseWriter, r *http.Request) {
	var asked Refund
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, "not a refund", http.StatusBadRequest)
		return
	}
	a, d := b.decide(r.Header.Get(referenceHeader), asked)
	if a == nil {
		http.Error(w, "unknown reference", http.StatusBadRequest)
		return
	}
	worker, _ := strconv.Atoi(r.Header.Get(workerHeader))
	b.out.Say("bank: worker %d asks for %s; %s", worker, stage.Euros(asked.Cents), d.text)
	a.tell(worker)
	a.hold(r.Context(), d.mute)
	if d.cut {
		panic(http.ErrAbortHandler) // net/http's way to do it
	}
	stage.Respond(w, d.status, d.body)
}

func (b *bank) decide(reference string, asked Refund) (*account, decision) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[reference]
	if a == nil {
		return nil, decision{}
	}
	a.Requests++
	b.numbered++
	switch {
	case a.Requests <= a.failsFirst:
		return a, decision{status: http.StatusServiceUnavailable, text: "answers 503, try again, nothing was paid"}
	case a.refuses != "":
		refused := RefusedError{Reason: a.refuses, Request: fmt.Sprintf("req_%d", b.numbered)}
		return a, decision{status: http.StatusUnprocessableEntity, body: refused, text: "refuses: " + a.refuses}
	}
	receipt := Receipt{Number: fmt.Sprintf("rf_%d", b.numbered), Cents: asked.Cents}
	a.Receipts = append(a.Receipts, receipt)
	d := decision{status: http.StatusOK, body: receipt, text: "it is paid, as " + receipt.Number}
	switch {
	case a.Requests <= a.mute:
		d.mute = true
		d.text += ", and the answer takes for ever"
	case a.Requests <= a.cuts:
		d.cut = true
		d.text += ", and the connection breaks"
	}
	return a, d
}

// tell lets a scene know who asked, if it still listens.
func (a *account) tell(worker int) {
	select {
	case a.asked <- worker:
	default:
	}
}

// hold withholds the answer: until the scene says so or, if mute, until the caller is gone.
func (a *account) hold(ctx context.Context, mute bool) {
	until := a.until
	switch {
	case mute:
		until = nil
	case until == nil:
		return
	}
	select {
	case <-until:
	case <-time.After(holdLimit):
	case <-ctx.Done():
	}
}

// look says whether a refund was paid under a reference.
func (b *bank) look(w http.ResponseWriter, r *http.Request) {
	worker := r.Header.Get(workerHeader)
	receipt, found := b.lookUp(r.Header.Get(referenceHeader))
	if !found {
		b.out.Say("bank: worker %s asks whether it was paid: no", worker)
		http.Error(w, "unknown reference", http.StatusNotFound)
		return
	}
	b.out.Say("bank: worker %s asks whether it was paid: yes, as %s", worker, receipt.Number)
	stage.Respond(w, http.StatusOK, receipt)
}

func (b *bank) lookUp(reference string) (receipt Receipt, found bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[reference]
	if a == nil {
		return Receipt{}, false
	}
	a.LookUps++
	if len(a.Receipts) == 0 {
		return Receipt{}, false
	}
	return a.Receipts[0], true
}
