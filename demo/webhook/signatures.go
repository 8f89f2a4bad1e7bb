package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/idempotent-go/idempotent/webhook"
)

func signatures() play {
	return play{
		title: "nobody else's events",
		story: `Requests that the provider did not sign, or not this body, or too long ago, or that are no
event. Each must be refused, and leave nothing behind. A genuine one at the end shows that
the others were refused for what is wrong with them.`,
		limit: sceneLimit,
		act:   forge,
	}
}

// A forgery is a request that must be refused.
type forgery struct {
	what      string
	id        string // of the event it claims to be
	body      []byte
	signature string
	want      int // its status
	got       int
}

type forgeries struct {
	tried    []forgery
	known    int // ids of which the endpoint knows something
	queued   int
	asked    int    // requests to the ledger
	genuine  int    // status of the genuine one
	credits  int    // by the genuine one
	noSecret string // why an endpoint without a secret does not start; empty if it does
}

func forge(ctx context.Context, st *set) (evidence, error) {
	e := &forgeries{}
	var err error
	if e.noSecret, err = st.startBare(ctx); err != nil {
		return nil, err
	}
	st.out.Say("no secret: %s", e.noSecret)
	if err := st.start(ctx, 1); err != nil {
		return nil, err
	}
	e.tried = st.forgeries()
	from := st.sender(stripe)
	for i := range e.tried {
		f := &e.tried[i]
		if f.got, err = from.post(ctx, f.body, f.signature); err != nil {
			return nil, err
		}
		st.out.Say("%s: %d", f.what, f.got)
		a, err := st.process.ask(ctx, stripe, f.id)
		if err != nil {
			return nil, err
		}
		e.known += min(a.Deliveries, 1)
	}
	var b webhook.Backlog
	if _, err := st.process.get(ctx, "/api/backlog", &b); err != nil {
		return nil, err
	}
	e.queued, e.asked = int(b.Unsettled()+b.Dead), len(st.ledger.read().asked)
	return e, st.genuine(ctx, e)
}

// startBare starts an endpoint that was given no secret, and returns why that does not work.
func (st *set) startBare(ctx context.Context) (why string, err error) {
	env := append(st.environment(), envStripeSecret+"=")
	p, err := startProcess(ctx, env, st.arguments(1))
	if err == nil {
		p.Stop(2 * grace)
		return "", nil
	}
	if _, why, ok := strings.Cut(err.Error(), "does not start: "); ok && errors.Is(err, stage.ErrGone) {
		return why, nil
	}
	return "", err
}

func (st *set) forgeries() []forgery {
	body := func(id string) []byte { return paid(id, "order-"+id) }
	now, secret := time.Now(), st.secrets[stripe]
	old := now.Add(-6 * time.Minute)
	huge := append(body("huge"), bytes.Repeat([]byte(" "), 1<<20)...)
	garbage := []byte("{")
	unsigned := http.StatusBadRequest
	return []forgery{
		{what: "no signature", id: "none", body: body("none"), want: unsigned},
		{what: "a signature that is none", id: "noise", body: body("noise"), signature: "t=1,v1=00", want: unsigned},
		{what: "signed with an empty secret", id: "empty", body: body("empty"), signature: sign(body("empty"), "", now), want: unsigned},
		{what: "signed with the bank's secret", id: "bank", body: body("bank"), signature: sign(body("bank"), st.secrets[bank], now), want: unsigned},
		{what: "signed, then changed", id: "dear", body: bytes.Replace(body("dear"), []byte("4999"), []byte("9999"), 1), signature: sign(body("dear"), secret, now), want: unsigned},
		{what: "signed 6 minutes ago", id: "old", body: body("old"), signature: sign(body("old"), secret, old), want: unsigned},
		{what: "signed 6 minutes ago, dated now", id: "new", body: body("new"), signature: redated(sign(body("new"), secret, old), now), want: unsigned},
		{what: "signed, and no event", id: "bad", body: garbage, signature: sign(garbage, secret, now), want: unsigned},
		{what: "signed, and a megabyte", id: "huge", body: huge, signature: sign(huge, secret, now), want: http.StatusRequestEntityTooLarge},
	}
}

// redated is a signature header with another time in it.
func redated(header string, at time.Time) string {
	_, rest, _ := strings.Cut(header, ",")
	return fmt.Sprintf("t=%d,%s", at.Unix(), rest)
}

func (st *set) genuine(ctx context.Context, e *forgeries) error {
	body := paid("genuine", "order-genuine")
	var err error
	if e.genuine, err = st.sender(stripe).post(ctx, body, sign(body, st.secrets[stripe], time.Now())); err != nil {
		return err
	}
	st.out.Say("a genuine one: %d", e.genuine)
	if _, err = st.process.drained(ctx); err != nil {
		return err
	}
	books := st.ledger.read()
	e.credits = books.total()
	return nil
}

func (e *forgeries) checks() []stage.Check {
	list := []stage.Check{{
		What: "an endpoint without a secret",
		Want: "does not start", Seen: starts(e.noSecret),
		OK: strings.Contains(e.noSecret, "secret"),
	}}
	for _, f := range e.tried {
		list = append(list, stage.Exactly(f.what, f.want, f.got))
	}
	return append(list,
		stage.Exactly("events the endpoint knows of after that", 0, e.known),
		stage.Exactly("entries in its queue", 0, e.queued),
		stage.Exactly("requests to the ledger", 0, e.asked),
		stage.Exactly("a genuine event", http.StatusOK, e.genuine),
		stage.Exactly("credits by it", 1, e.credits))
}

func starts(why string) string {
	if why == "" {
		return "starts"
	}
	return "does not start"
}
