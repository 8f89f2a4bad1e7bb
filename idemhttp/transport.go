package idemhttp

import (
	"context"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
)

// A Transport is an http.RoundTripper that makes retries safe, and makes them.
//
// It gives each POST and PATCH without an Idempotency-Key a fresh UUID. A request that has a key,
// from it or from the caller, is sent again, with the same key and body, after an error of the
// connection and after 409, 429, 502, 503 and 504, with growing pauses and not before Retry-After.
// A response that says it is a replay is final. It gives up, and returns the last response or
// error, when the next attempt would exceed its bounds or the request's context.
//
// A request without a key passes untouched, and so does one whose key the caller has set to nil, and
// one to a host that WithHosts leaves out. A request whose body cannot be had again (Request.GetBody is
// nil) gets a key and is sent once.
//
// A retry is safe only where the server honours the key: one that does not know the field does its
// work again. Where a client also speaks to such servers, name the others with WithHosts.
//
// A response whose body breaks off is not asked for again: that happens after RoundTrip.
// Whoever sends the request again then must set the key itself, before the first time.
type Transport struct {
	base http.RoundTripper
	transportConfig
}

// NewTransport makes a Transport on base, http.DefaultTransport if that is nil. Options that are
// not allowed are idempotent.ErrInvalidOption.
func NewTransport(base http.RoundTripper, opts ...TransportOption) (*Transport, error) {
	t := &Transport{base: base, transportConfig: defaultTransportConfig()}
	if base == nil {
		t.base = http.DefaultTransport
	}
	for _, o := range opts {
		if o == nil {
			return nil, invalid("NewTransport", "option", "nil", "a TransportOption")
		}
		o(&t.transportConfig)
	}
	if err := t.validate(); err != nil {
		return nil, err
	}
	return t, nil
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	values, set := r.Header[KeyHeader]
	switch {
	case set && len(values) == 0, !set && r.Method != http.MethodPost && r.Method != http.MethodPatch, !t.speaksTo(r.URL):
		return t.base.RoundTrip(r)
	case !set:
		r = r.Clone(r.Context()) // a RoundTripper must not change the request
		if r.Header == nil {
			r.Header = make(http.Header)
		}
		r.Header.Set(KeyHeader, t.newKey())
	}
	if r.Body != nil && r.Body != http.NoBody && r.GetBody == nil {
		return t.base.RoundTrip(r)
	}
	return t.repeat(r)
}

// repeat sends r until the answer is final or there is no more time.
func (t *Transport) repeat(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	pauses := &backoff.ExponentialBackOff{
		InitialInterval:     t.firstBackoff,
		RandomizationFactor: 0.5,
		Multiplier:          2,
		MaxInterval:         t.maxBackoff,
	}
	pauses.Reset()
	began := time.Now()
	for attempt := 1; ; attempt++ {
		res, err := t.base.RoundTrip(r)
		if attempt == t.maxAttempts || !worthAnotherTry(r, res, err) {
			return res, err
		}
		pause := max(pauses.NextBackOff(), retryAfter(res))
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause || pause > t.maxElapsed-time.Since(began) {
			return res, err
		}
		next, bodyErr := again(r)
		if bodyErr != nil {
			return res, err
		}
		discard(res)
		if err := wait(ctx, pause); err != nil {
			closeBody(next)
			return nil, err
		}
		r = next
	}
}

func worthAnotherTry(r *http.Request, res *http.Response, err error) bool {
	if err != nil {
		return r.Context().Err() == nil && !permanent(r, err)
	}
	if res.Header.Get(ReplayedHeader) == "true" {
		return false
	}
	switch res.StatusCode {
	case http.StatusConflict, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// speaksTo reports whether requests to a URL get keys and are repeated.
func (t *Transport) speaksTo(u *url.URL) bool {
	if len(t.hosts) == 0 {
		return true
	}
	return u != nil && slices.ContainsFunc(t.hosts, func(host string) bool { return matchesHost(host, u.Hostname(), u.Host) })
}

func (t *Transport) newKey() string {
	if t.bare {
		return uuid.NewString()
	}
	return `"` + uuid.NewString() + `"`
}

// retryAfter is how long a response asks to wait, 0 if it does not.
func retryAfter(res *http.Response) time.Duration {
	if res == nil {
		return 0
	}
	text := strings.TrimSpace(res.Header.Get("Retry-After"))
	if text != "" && strings.Trim(text, "0123456789") == "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n > int64(math.MaxInt64/time.Second) {
			return math.MaxInt64 // longer than anybody waits
		}
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// again returns r with its body to be sent once more.
func again(r *http.Request) (*http.Request, error) {
	next := r.Clone(r.Context())
	if r.GetBody == nil || r.Body == nil || r.Body == http.NoBody {
		return next, nil
	}
	body, err := r.GetBody()
	next.Body = body
	return next, err
}

// discard makes the connection of a response free for the next attempt, if that costs little.
func discard(res *http.Response) {
	if res != nil {
		_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
		_ = res.Body.Close()
	}
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// CloseIdleConnections closes those of the base, for http.Client.CloseIdleConnections.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
