package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func askLedger(t *testing.T, l *ledger, method, path string, c credit) (status int) {
	t.Helper()
	body, err := json.Marshal(c)
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), method, l.url+path, strings.NewReader(string(body)))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// The ledger shows double effects: it must not deduplicate.
func TestLedgerCreditsTwice(t *testing.T) {
	l := newLedger()
	stop, err := l.start()
	require.NoError(t, err)
	defer stop()
	c := credit{Reference: "ref", Order: "order", Cents: 1}
	assert.Equal(t, http.StatusNotFound, askLedger(t, l, http.MethodGet, "/credits/ref", c))
	for range 2 {
		assert.Equal(t, http.StatusOK, askLedger(t, l, http.MethodPost, "/credits", c))
	}
	assert.Equal(t, http.StatusOK, askLedger(t, l, http.MethodGet, "/credits/ref", c))
	books := l.read()
	assert.Equal(t, 2, books.total())
	assert.Equal(t, 1, books.twice())
	assert.Len(t, books.asked["order"], 2)
	assert.Equal(t, map[string]int{"ref": 2}, books.lookups)
}

func TestLedgerManners(t *testing.T) {
	l := newLedger()
	stop, err := l.start()
	require.NoError(t, err)
	defer stop()
	l.behave("flaky", &manner{fails: 1})
	l.behave("unknown", &manner{unknown: true})
	assert.Equal(t, http.StatusServiceUnavailable, askLedger(t, l, http.MethodPost, "/credits", credit{Order: "flaky"}))
	assert.Equal(t, http.StatusOK, askLedger(t, l, http.MethodPost, "/credits", credit{Order: "flaky"}))
	assert.Equal(t, http.StatusUnprocessableEntity, askLedger(t, l, http.MethodPost, "/credits", credit{Order: "unknown"}))
	books := l.read()
	assert.Equal(t, 1, books.total())
}

// A sender sends again what was not accepted, as long as it may be, and gives up what was refused.
func TestSender(t *testing.T) {
	var requests atomic.Int32
	answers := func(statuses ...int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			n := int(requests.Add(1))
			w.WriteHeader(statuses[min(n, len(statuses))-1])
		}
	}
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		tally   tally
		err     string
	}{
		{"accepted", answers(200), tally{accepted: 1}, ""},
		{"accepted at last", answers(503, 503, 200), tally{accepted: 1, resent: 2}, ""},
		{"refused", answers(400), tally{}, "status 400"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			requests.Store(0)
			server := httptest.NewServer(tt.handler)
			defer server.Close()
			s := newSender(server.URL, "secret")
			err := s.deliverAll(t.Context(), [][]byte{paid("evt", "order")})
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			assert.Len(t, s.tally.answers, 1+tt.tally.resent)
			s.tally.answers = nil
			assert.Equal(t, tt.tally, s.tally)
		})
	}
}

func TestSenderEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	err := newSender(server.URL, "secret").deliverAll(ctx, [][]byte{paid("a", "a"), paid("b", "b")})
	require.ErrorIs(t, err, context.Canceled)
}

// What the demo signs is what the endpoint of the settings checks.
func TestSignature(t *testing.T) {
	at := time.Unix(1700000000, 0)
	header := sign([]byte("body"), "secret", at)
	assert.True(t, strings.HasPrefix(header, "t=1700000000,v1="), header)
	assert.NotEqual(t, header, sign([]byte("body"), "other", at))
	assert.Equal(t, strings.Replace(header, "1700000000", "1700000009", 1), redated(header, at.Add(9*time.Second)))
}
