package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/stripe/stripe-go/v85"
)

// Stripe's names for cards in test mode.
const (
	cardGood     = "pm_card_visa"
	cardDeclined = "pm_card_chargeDeclined"
)

// A demo plays scenes, one after the other.
type demo struct {
	out       *stage.Narrator
	proxy     *proxy // nil with the real Stripe
	stripe    *stripe.Client
	fleet     *fleet
	namespace string // of the keys in Redis, and of the Idempotency-Keys made from them

	mu     sync.Mutex
	played int
	stage  *set // of the scene that is played
}

// A play is a scene as it is written.
type play struct {
	title string
	story string
	card  string
	// needsProxy: the scene breaks something, or looks at single requests.
	needsProxy bool
	act        func(ctx context.Context, st *set) error
	judge      func(e *evidence) []stage.Check
}

// Evidence is what a scene left behind.
type evidence struct {
	first  []outcome // of those that asked at the same moment, and lived
	second []outcome // of those that asked when that was over
	books  books     // Stripe's
	seen   bool      // the books have the single requests: they are the proxy's

	killed     int // the number of the worker, 0 if none was
	executions []execution
}

// An execution is one of fn.
type execution struct{ worker, attempt int }

// A set is where a scene is played.
type set struct {
	*demo
	payment Payment
	account *account // nil with the real Stripe

	mu       sync.Mutex // guards what events tell
	present  int        // callers that run fn or wait for it
	gathered chan struct{}
	released chan struct{}
	release  func()
	evidence
}

func (d *demo) playAll(ctx context.Context) (t stage.Tally, err error) {
	for _, p := range script() {
		if p.needsProxy && d.proxy == nil {
			d.out.Print("\nSkipped: %s. It needs the proxy in front of stripe-mock; unset STRIPE_API_KEY to see it.\n", p.title)
			t.Skipped++
			continue
		}
		checks, err := d.perform(ctx, p)
		if err != nil {
			return t, fmt.Errorf("scene %q: %w", p.title, err)
		}
		if t.Add(checks); t.Failed > 0 { // it should be the last thing on the screen
			break
		}
	}
	return t, nil
}

// perform plays one scene and judges it.
func (d *demo) perform(ctx context.Context, p play) ([]stage.Check, error) {
	ctx, cancel := stage.Limit(ctx, sceneLimit)
	defer cancel()
	if err := d.fleet.complete(); err != nil {
		return nil, err
	}
	st, err := d.set(ctx, p)
	if err != nil {
		return nil, err
	}
	d.out.Open(d.played, p.title, p.story)
	if err := p.act(ctx, st); err != nil {
		return nil, err
	}
	e, err := st.close(ctx)
	if err != nil {
		return nil, err
	}
	checks := p.judge(&e)
	d.out.Table(row, checks)
	return checks, nil
}

// set makes the set for the next scene, with an order and a customer of its own.
func (d *demo) set(ctx context.Context, p play) (*set, error) {
	placed := time.Now()
	customer, err := d.stripe.V1Customers.Create(ctx, &stripe.CustomerCreateParams{Description: new("an example of package idempotent")})
	if err != nil {
		return nil, fmt.Errorf("making a customer: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.played++
	st := &set{demo: d, gathered: make(chan struct{}), released: make(chan struct{})}
	st.release = sync.OnceFunc(func() { close(st.released) })
	st.payment = Payment{
		Order: fmt.Sprintf("order-%d", d.played), Try: 1,
		Cents: 4999, Currency: "eur",
		Customer: customer.ID, Method: p.card, Placed: placed,
	}
	d.stage = st
	return st, nil
}

// behave makes Stripe behave in that manner towards this scene's customer.
func (st *set) behave(m manner) {
	if st.proxy != nil {
		st.account = st.proxy.ledger.open(st.payment.Customer, m)
	}
}

// close returns the evidence, Stripe's books included.
func (st *set) close(ctx context.Context) (evidence, error) {
	b, err := st.audit(ctx)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.books, st.seen = b, st.proxy != nil
	return st.evidence, err
}

// audit reads Stripe's books: the proxy's, or what the real Stripe lists.
func (st *set) audit(ctx context.Context) (b books, err error) {
	if st.proxy != nil {
		return st.proxy.ledger.read(st.account), nil
	}
	params := &stripe.PaymentIntentListParams{Customer: new(st.payment.Customer)}
	for intent, err := range st.stripe.V1PaymentIntents.List(ctx, params).All(ctx) {
		if err != nil {
			return b, fmt.Errorf("reading Stripe's books: %w", err)
		}
		if moved(intent) {
			b.Charges = append(b.Charges, intent.ID)
		} else {
			b.Declines++
		}
	}
	return b, nil
}

// observe hears of every event of the workers' executors.
func (d *demo) observe(worker int, e event) {
	d.mu.Lock()
	st := d.stage
	d.mu.Unlock()
	if st == nil || e.Key != st.payment.key() {
		return
	}
	if text := st.note(worker, e); text != "" {
		d.out.Say("worker %d %s", worker, text)
	}
}

// note keeps what the judge and the scene need, and returns what the audience should know.
func (st *set) note(worker int, e event) string {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch e.Kind {
	case idempotent.EventClaimed:
		st.executions = append(st.executions, execution{worker, e.Attempt})
		st.arrive()
		return fmt.Sprintf("owns the key and runs fn, attempt %d", e.Attempt)
	case idempotent.EventJoined:
		st.arrive()
	case idempotent.EventWaitStarted:
		st.arrive()
		return "waits for the owner"
	case idempotent.EventInterrupted:
		if e.Failed { // its own process says so
			return fmt.Sprintf("does not know what attempt %d has done, and leaves it to the next in line", e.Attempt)
		}
		return fmt.Sprintf("finds that attempt %d ended without an outcome, and takes over", e.Attempt)
	case idempotent.EventReleased:
		return "does not record the error; the key is free"
	case idempotent.EventRecorded:
		return "has recorded the outcome"
	}
	return ""
}

// arrive counts a caller. The set's mutex is held.
func (st *set) arrive() {
	if st.present++; st.present == everybody {
		close(st.gathered)
	}
}
