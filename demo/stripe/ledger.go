package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A ledger is the memory that stripe-mock lacks. For Idempotency-Keys it does what Stripe documents:
// the first answer for a key is kept and given again, a decline or a failure too; other parameters
// under the same key are an error; a request that comes while the first one runs is a conflict; and
// what was refused before it began (a rate limit, a bad request) is not remembered.
type ledger struct {
	mu       sync.Mutex
	accounts map[string]*account // by customer
	keys     map[string]*keyed
	numbered int
}

// A keyed request has an answer once it is over.
type keyed struct {
	params string
	answer *reply
}

// An account is what is known of a customer. The ledger's mutex guards it.
type account struct {
	manner
	books
	intents  []json.RawMessage
	answered chan struct{} // closed when the first answer is booked
	tell     func()
}

// A manner is how Stripe behaves towards a customer.
type manner struct {
	limits    int             // that many requests hit the rate limit
	cuts      bool            // connections are cut instead of a request for money being answered
	until     <-chan struct{} // until it is closed, answers are withheld
	blindList bool            // look-ups do not show what was written, as a search would for a while
	quiet     bool            // the audience need not hear of each request
}

// The books are what a scene is judged by.
type books struct {
	Requests int            // for money
	Keys     map[string]int // the same, by Idempotency-Key
	Replayed int            // answered from memory, because of the key
	LookUps  int
	Charges  []string // PaymentIntents that took money
	Declines int
}

func newLedger() *ledger {
	return &ledger{accounts: make(map[string]*account), keys: make(map[string]*keyed)}
}

// account returns the customer's, and opens it if need be.
func (l *ledger) account(customer string) *account {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accountLocked(customer)
}

func (l *ledger) accountLocked(customer string) *account {
	a := l.accounts[customer]
	if a == nil {
		a = &account{answered: make(chan struct{})}
		a.tell = sync.OnceFunc(func() { close(a.answered) })
		a.Keys = make(map[string]int)
		l.accounts[customer] = a
	}
	return a
}

// open makes Stripe behave in that manner towards a customer.
func (l *ledger) open(customer string, m manner) *account {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.accountLocked(customer)
	a.manner = m
	return a
}

func (l *ledger) read(a *account) books {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := a.books
	b.Keys, b.Charges = maps.Clone(b.Keys), slices.Clone(b.Charges)
	return b
}

// admit answers a request that is not to be begun; one that is gets no answer yet.
func (l *ledger) admit(a *account, key, params string) (answer *reply, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.Requests++
	a.Keys[key]++
	if a.limits > 0 {
		a.limits--
		return l.failure(http.StatusTooManyRequests, map[string]any{
			"type": "invalid_request_error", "code": "rate_limit", "message": "Request rate limit exceeded.",
		}), "429, the rate limit"
	}
	earlier := l.keys[key]
	switch {
	case earlier == nil:
		l.keys[key] = &keyed{params: params}
		return nil, ""
	case earlier.params != params:
		return l.failure(http.StatusBadRequest, map[string]any{
			"type": "idempotency_error", "message": "Keys for idempotent requests can only be used with the same parameters they were first used with.",
		}), "400, the key was used with other parameters"
	case earlier.answer == nil:
		return l.failure(http.StatusConflict, map[string]any{
			"type": "idempotency_error", "code": "idempotency_key_in_use", "message": "There is currently another in-progress request using this Idempotent Key.",
		}), "409, a request with this key is running"
	}
	a.Replayed++
	again := *earlier.answer
	again.replayed = true
	return &again, "it knows the key, and repeats its answer"
}

// withdraw forgets a key whose request came to nothing.
func (l *ledger) withdraw(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.keys, key)
}

// book carries out a request: it makes a PaymentIntent out of stripe-mock's fixture.
func (l *ledger) book(a *account, key string, form url.Values, fixture []byte) (answer *reply, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.numbered++
	id := fmt.Sprintf("pi_%d", l.numbered)
	intent := fill(fixture, id, form)
	if strings.HasPrefix(form.Get("payment_method"), cardDeclined) {
		a.Declines++
		intent["status"] = "requires_payment_method"
		answer, text = l.decline(intent), "the bank declines"
	} else {
		a.Charges = append(a.Charges, id)
		answer, text = &reply{status: http.StatusOK, body: encode(intent), request: l.request()}, "the money is taken, as "+id
	}
	a.intents = append(a.intents, encode(intent))
	l.keys[key].answer = answer
	return answer, text
}

// fill puts into a fixture what was asked for.
func fill(fixture []byte, id string, form url.Values) map[string]any {
	var intent map[string]any
	if json.Unmarshal(fixture, &intent) != nil {
		intent = make(map[string]any)
	}
	amount, _ := strconv.ParseInt(form.Get("amount"), 10, 64)
	metadata := make(map[string]string)
	for name, values := range form {
		if inner, ok := strings.CutPrefix(name, "metadata["); ok {
			metadata[strings.TrimSuffix(inner, "]")] = values[0]
		}
	}
	maps.Copy(intent, map[string]any{
		"id": id, "client_secret": id + "_secret_mock", "status": "succeeded", "created": time.Now().Unix(),
		"amount": amount, "amount_received": amount, "currency": form.Get("currency"), "customer": form.Get("customer"),
		"metadata": metadata, "last_payment_error": nil, "latest_charge": "ch_" + strings.TrimPrefix(id, "pi_"),
	})
	return intent
}

// decline is the answer that Stripe documents for a declined card.
func (l *ledger) decline(intent map[string]any) *reply {
	return l.failure(http.StatusPaymentRequired, map[string]any{
		"type": "card_error", "code": "card_declined", "decline_code": "generic_decline",
		"message": "Your card was declined.", "doc_url": "https://stripe.com/docs/error-codes/card-declined",
		"charge": intent["latest_charge"], "payment_intent": intent,
	})
}

func (l *ledger) failure(status int, what map[string]any) *reply {
	return &reply{status: status, body: encode(map[string]any{"error": what}), request: l.request()}
}

func (l *ledger) request() string {
	l.numbered++
	return fmt.Sprintf("req_%d", l.numbered)
}

// list returns the customer's PaymentIntents, the latest first, as Stripe does.
func (l *ledger) list(a *account) []json.RawMessage {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.LookUps++
	if a.blindList {
		return []json.RawMessage{}
	}
	intents := append([]json.RawMessage{}, a.intents...)
	slices.Reverse(intents)
	return intents
}

// hold withholds an answer, and says whether the connection is to be cut instead.
func (l *ledger) hold(ctx context.Context, a *account) (cut bool) {
	l.mu.Lock()
	m := a.manner
	l.mu.Unlock()
	if m.until != nil {
		select {
		case <-m.until:
		case <-time.After(holdLimit):
		case <-ctx.Done():
		}
	}
	return m.cuts
}

func money(form url.Values) string {
	cents, _ := strconv.ParseInt(form.Get("amount"), 10, 64)
	return fmt.Sprintf("%d.%02d %s", cents/100, cents%100, strings.ToUpper(form.Get("currency")))
}
