package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

// A proxy stands in front of stripe-mock and adds what that lacks. stripe-mock checks requests
// against Stripe's API description and answers with a fixture, but it has no memory: it knows
// neither an Idempotency-Key nor a charge that was made, and no card is ever declined.
//
// So this is a model of the part of Stripe that the example is about, written from Stripe's
// documentation, and not Stripe: what becomes of a key is in ledger.go. It also breaks down on
// demand, which the real Stripe does not. Set STRIPE_API_KEY to run without it.
type proxy struct {
	url    string
	mock   string
	ledger *ledger
	say    func(format string, args ...any)
	stop   func()
}

const (
	// holdLimit is how long an answer is withheld at most.
	holdLimit = 10 * time.Second

	maxBody = 64 << 10
)

func startProxy(mock string, say func(format string, args ...any)) (*proxy, error) {
	target, err := url.Parse(mock)
	if err != nil {
		return nil, err
	}
	p := &proxy{mock: mock, ledger: newLedger(), say: say}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/payment_intents", p.create)
	mux.HandleFunc("GET /v1/payment_intents", p.list)
	mux.Handle("/", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
	p.url, p.stop, err = stage.ServeHTTP(mux, func(err error) { say("the proxy broke down: %v", err) })
	if err != nil {
		return nil, fmt.Errorf("starting the proxy: %w", err)
	}
	return p, nil
}

// A reply is what Stripe answers.
type reply struct {
	status   int
	body     []byte
	request  string // Stripe's name for the request it answered first
	replayed bool
}

func (r *reply) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Request-Id", r.request)
	if r.replayed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body) // fails when the caller is gone, which is its own affair
}

// create answers a request for money. What is done is booked before anybody hears of it, so a
// caller that is killed in between has paid all the same.
func (p *proxy) create(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return // the caller is gone
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		http.Error(w, "not a form", http.StatusBadRequest)
		return
	}
	a := p.ledger.account(form.Get("customer"))
	key := r.Header.Get("Idempotency-Key")
	answer, text := p.decide(r, a, key, form)
	if !a.quiet {
		p.say("Stripe: asked for %s with key %.8s...; %s", money(form), key, text)
	}
	a.tell()
	if p.ledger.hold(r.Context(), a) {
		panic(http.ErrAbortHandler) // cuts the connection
	}
	answer.write(w)
}

// decide finds the answer, and what to say of it.
func (p *proxy) decide(r *http.Request, a *account, key string, form url.Values) (answer *reply, text string) {
	answer, text = p.ledger.admit(a, key, form.Encode())
	if answer != nil {
		return answer, text
	}
	fixture, err := p.forward(r, form.Encode())
	if err != nil {
		p.ledger.withdraw(key)
		return &reply{status: http.StatusBadGateway, body: []byte(`{"error":{"type":"api_error"}}`)}, "stripe-mock does not answer: " + err.Error()
	}
	if fixture.status != http.StatusOK { // Stripe does not remember what it has not begun
		p.ledger.withdraw(key)
		return fixture, "the request is refused: " + string(fixture.body)
	}
	return p.ledger.book(a, key, form, fixture.body)
}

// list answers a look-up from the books.
func (p *proxy) list(w http.ResponseWriter, r *http.Request) {
	answer, err := p.forward(r, "")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	if answer.status == http.StatusOK {
		query := r.URL.Query()
		a := p.ledger.account(query.Get("customer"))
		intents := p.ledger.list(a)
		p.say("Stripe: asked for the customer's payments; it lists %d", len(intents))
		answer.body = encode(map[string]any{
			"object": "list", "url": r.URL.Path, "has_more": false, "data": intents,
		})
	}
	answer.write(w)
}

// forward has stripe-mock check a request, and returns its answer.
func (p *proxy) forward(r *http.Request, body string) (*reply, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), holdLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.Method, p.mock+r.URL.RequestURI(), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = maps.Clone(r.Header)
	req.Header.Del("Accept-Encoding") // let the transport unpack it
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return &reply{status: resp.StatusCode, body: raw, request: resp.Header.Get("Request-Id")}, err
}

func encode(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil { // it is made of what JSON was decoded into
		panic(err)
	}
	return raw
}
