package webhook_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/idemtest"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/webhook"
)

func TestNewRefuses(t *testing.T) {
	rdb := idemtest.NewRedis(t)
	store := open(t, rdb, namespace())
	good := []webhook.Source{stripeSource(t)}
	handler := func(context.Context, *webhook.Job) error { return nil }
	for _, c := range []struct {
		name    string
		sources []webhook.Source
		routes  func(*webhook.Router)
		opts    []webhook.Option
		text    string
	}{
		{name: "no source", text: "no sources"},
		{name: "no scheme", sources: []webhook.Source{{Name: "a"}}, text: "Scheme is nil"},
		{name: "a name with a slash", sources: []webhook.Source{{Name: "a/b", Scheme: good[0].Scheme}}, text: `source name is "a/b"`},
		{name: "two of a name", sources: []webhook.Source{good[0], good[0]}, text: `two sources are named "stripe"`},
		{name: "no confirm", sources: []webhook.Source{{Name: "toss", Scheme: webhook.TossPaymentsUnsigned()}}, text: "Confirm is nil"},
		{name: "a handler of no source", sources: good, routes: func(r *webhook.Router) { r.Handle("shop", "*", handler) }, text: `source "shop"`},
		{name: "no handler", sources: good, routes: func(r *webhook.Router) { r.Handle("stripe", "*", nil) }, text: "handler is nil"},
		{name: "a star in the middle", sources: good, routes: func(r *webhook.Router) { r.Handle("stripe", "a*b", handler) }, text: `pattern "a*b"`},
		{name: "a pattern twice", sources: good, routes: func(r *webhook.Router) { r.Handle("stripe", "a", handler); r.Handle("stripe", "a", handler) }, text: "registered twice"},
		{name: "no attempts", sources: good, routes: func(r *webhook.Router) { r.Handle("stripe", "a", handler, webhook.Attempts(0)) }, text: "Attempts is 0"},
		{name: "no workers", sources: good, opts: []webhook.Option{webhook.WithWorkers(0)}, text: "WithWorkers is 0"},
		{name: "a nil logger", sources: good, opts: []webhook.Option{webhook.WithLogger(nil)}, text: "WithLogger is nil"},
		{name: "a nil option", sources: good, opts: []webhook.Option{nil}, text: "option 0 is nil"},
		{name: "bodies kept longer than events", sources: good, opts: []webhook.Option{webhook.WithRetention(webhook.Retention{Events: time.Hour, Bodies: 2 * time.Hour, Positions: time.Hour})}, text: "WithRetention"},
	} {
		router := webhook.NewRouter()
		if c.routes != nil {
			c.routes(router)
		}
		_, err := webhook.New(t.Context(), store, c.sources, router, c.opts...)
		assert.ErrorContains(t, err, c.text, c.name)
	}
}

func TestNewRefusesAStoreThatLosesEvents(t *testing.T) {
	sources := []webhook.Source{stripeSource(t)}
	memory := redistest.Start(t)
	_, err := webhook.New(t.Context(), open(t, memory.Client(t), namespace()), sources, webhook.NewRouter())
	require.ErrorContains(t, err, "nothing is written to disk")
	durable := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	client := durable.Client(t)
	in, err := webhook.New(t.Context(), open(t, client, "one"), sources, webhook.NewRouter())
	require.NoError(t, err)
	d, err := in.Check(t.Context())
	require.NoError(t, err)
	assert.Contains(t, d.Survives, "appendfsync always")
	require.NoError(t, in.Ready(t.Context()))
	require.NoError(t, in.Close())
	require.Error(t, in.Ready(t.Context()))
	_, err = webhook.New(t.Context(), open(t, client, "one", webhook.WithLanes(4)), sources, webhook.NewRouter())
	require.ErrorContains(t, err, "has 16 lanes, this store 4")
}
