package idemhttp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
)

// A script is an http.RoundTripper that answers one entry after the other, the last one for ever:
// a status, an error, or an *http.Response.
type script struct {
	t       testing.TB
	answers []any
	keys    []string
	bodies  []string
	at      []time.Time
	open    int // bodies of responses that are not closed
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	n := min(len(s.at), len(s.answers)-1)
	s.at = append(s.at, time.Now())
	s.keys = append(s.keys, strings.Join(r.Header.Values(idemhttp.KeyHeader), "|"))
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		require.NoError(s.t, err)
		s.bodies = append(s.bodies, string(body))
		require.NoError(s.t, r.Body.Close())
	}
	res := &http.Response{Header: http.Header{}, Request: r}
	switch a := s.answers[n].(type) {
	case error:
		return nil, a
	case int:
		res.StatusCode = a
	case *http.Response:
		res.StatusCode, res.Header = a.StatusCode, a.Header
	}
	s.open++
	res.Body = &closing{Reader: strings.NewReader("answer"), close: func() { s.open-- }}
	return res, nil
}

type closing struct {
	io.Reader
	close func()
}

func (c *closing) Close() error {
	c.close()
	return nil
}

// pauses are the times between the attempts.
func (s *script) pauses() (pauses []time.Duration) {
	for i := 1; i < len(s.at); i++ {
		pauses = append(pauses, s.at[i].Sub(s.at[i-1]))
	}
	return pauses
}

// scripted runs a test with a transport in fake time.
func scripted(t *testing.T, answers []any, opts []idemhttp.TransportOption, test func(t *testing.T, rt *idemhttp.Transport, s *script)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &script{t: t, answers: answers}
		rt, err := idemhttp.NewTransport(s, opts...)
		require.NoError(t, err)
		test(t, rt, s)
	})
}

func newRequest(t testing.TB, method string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://api.example.com/", body)
	require.NoError(t, err)
	return r
}

var errReset = errors.New("connection reset by peer")

func TestTransportGivesAKey(t *testing.T) {
	for _, method := range []string{http.MethodPost, http.MethodPatch} {
		scripted(t, []any{200}, nil, func(t *testing.T, rt *idemhttp.Transport, s *script) {
			r := newRequest(t, method, strings.NewReader("x"))
			for range 2 {
				_, err := rt.RoundTrip(r)
				require.NoError(t, err)
			}
			assert.NotContains(t, r.Header, idemhttp.KeyHeader, "the request is the caller's")
			require.Len(t, s.keys, 2)
			assert.NotEqual(t, s.keys[0], s.keys[1], "two requests")
			for _, key := range s.keys {
				inner, ok := strings.CutPrefix(strings.TrimSuffix(key, `"`), `"`)
				assert.True(t, ok, key)
				_, err := uuid.Parse(inner)
				assert.NoError(t, err)
			}
		})
	}
}

func TestTransportLeavesAlone(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete} {
		scripted(t, []any{503}, nil, func(t *testing.T, rt *idemhttp.Transport, s *script) {
			_, err := rt.RoundTrip(newRequest(t, method, nil))
			require.NoError(t, err)
			assert.Equal(t, []string{""}, s.keys, "no key, one attempt")
		})
	}
	scripted(t, []any{503}, nil, func(t *testing.T, rt *idemhttp.Transport, s *script) {
		r := newRequest(t, http.MethodPost, nil)
		r.Header[idemhttp.KeyHeader] = nil
		_, err := rt.RoundTrip(r)
		require.NoError(t, err)
		assert.Equal(t, []string{""}, s.keys, "the caller wants none")
	})
}

func TestTransportKeepsKeyAndBody(t *testing.T) {
	for _, own := range []string{"", "mine"} {
		scripted(t, []any{errReset, 409, 429, 502, 503, 200}, nil, func(t *testing.T, rt *idemhttp.Transport, s *script) {
			r := newRequest(t, http.MethodPost, strings.NewReader("the body"))
			if own != "" {
				r.Header.Set(idemhttp.KeyHeader, own)
			}
			res, err := rt.RoundTrip(r)
			require.NoError(t, err)
			assert.Equal(t, 200, res.StatusCode)
			require.Len(t, s.keys, 6)
			for i := range s.keys {
				assert.Equal(t, s.keys[0], s.keys[i])
				assert.Equal(t, "the body", s.bodies[i])
			}
			if own != "" {
				assert.Equal(t, own, s.keys[0])
			}
			assert.Equal(t, 1, s.open, "all but the last response are closed")
		})
	}
	scripted(t, []any{504, 200}, nil, func(t *testing.T, rt *idemhttp.Transport, s *script) {
		r := newRequest(t, http.MethodDelete, nil)
		r.Header.Set(idemhttp.KeyHeader, "mine")
		res, err := rt.RoundTrip(r)
		require.NoError(t, err)
		assert.Equal(t, 200, res.StatusCode, "a key makes any method safe")
	})
}

func TestTransportDoesNotRetry(t *testing.T) {
	final := &http.Response{StatusCode: http.StatusConflict, Header: http.Header{idemhttp.ReplayedHeader: {"true"}}}
	untrusted := &tls.CertificateVerificationError{Err: errors.New("unknown authority")}
	for _, answer := range []any{200, 201, 204, 302, 400, 401, 404, 413, 422, 500, 501, final, untrusted} {
		scripted(t, []any{answer}, nil, func(t *testing.T, rt *idemhttp.Transport, s *script) {
			_, _ = rt.RoundTrip(newRequest(t, http.MethodPost, nil))
			assert.Len(t, s.at, 1, answer)
		})
	}
}

func TestTransportBodyThatCannotBeHadAgain(t *testing.T) {
	for _, answer := range []any{errReset, 503} {
		scripted(t, []any{answer, 200}, nil, func(t *testing.T, rt *idemhttp.Transport, s *script) {
			r := newRequest(t, http.MethodPost, io.MultiReader(strings.NewReader("x")))
			require.Nil(t, r.GetBody)
			_, _ = rt.RoundTrip(r)
			assert.Len(t, s.at, 1)
			assert.NotEmpty(t, s.keys[0])
		})
		scripted(t, []any{answer, 200}, nil, func(t *testing.T, rt *idemhttp.Transport, s *script) {
			r := newRequest(t, http.MethodPost, strings.NewReader("x"))
			r.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("the file is gone") }
			res, err := rt.RoundTrip(r)
			assert.Len(t, s.at, 1)
			assert.True(t, res != nil && err == nil || errors.Is(err, errReset), "what the first attempt had")
		})
	}
}

func TestTransportBackoff(t *testing.T) {
	opts := []idemhttp.TransportOption{idemhttp.WithBackoff(100*time.Millisecond, 400*time.Millisecond), idemhttp.WithMaxAttempts(6)}
	scripted(t, []any{503}, opts, func(t *testing.T, rt *idemhttp.Transport, s *script) {
		res, err := rt.RoundTrip(newRequest(t, http.MethodPost, nil))
		require.NoError(t, err)
		assert.Equal(t, 503, res.StatusCode, "the last response, to be read")
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		assert.Equal(t, "answer", string(body))
		pauses := s.pauses()
		require.Len(t, pauses, 5)
		for i, middle := range []time.Duration{100, 200, 400, 400, 400} {
			middle *= time.Millisecond
			assert.GreaterOrEqual(t, pauses[i], middle/2)
			assert.LessOrEqual(t, pauses[i], middle*3/2)
		}
	})
	seen := make(map[time.Duration]bool)
	for range 5 {
		scripted(t, []any{errReset}, []idemhttp.TransportOption{idemhttp.WithMaxAttempts(2)}, func(t *testing.T, rt *idemhttp.Transport, s *script) {
			_, err := rt.RoundTrip(newRequest(t, http.MethodPost, nil))
			assert.ErrorIs(t, err, errReset)
			seen[s.pauses()[0]] = true
		})
	}
	assert.Greater(t, len(seen), 1, "there is jitter")
}

func TestTransportRetryAfter(t *testing.T) {
	t.Parallel()
	after := func(text string) *http.Response {
		return &http.Response{StatusCode: http.StatusConflict, Header: http.Header{"Retry-After": {text}}}
	}
	for text, least := range map[string]time.Duration{"20": 20 * time.Second, "0": 0, "": 0, "soon": 0, "-5": 0} {
		scripted(t, []any{after(text), 200}, nil, func(t *testing.T, rt *idemhttp.Transport, s *script) {
			_, err := rt.RoundTrip(newRequest(t, http.MethodPost, nil))
			require.NoError(t, err)
			require.Len(t, s.at, 2, text)
			assert.GreaterOrEqual(t, s.pauses()[0], max(least, 250*time.Millisecond), text)
			assert.LessOrEqual(t, s.pauses()[0], max(least, 750*time.Millisecond), text)
		})
	}
	synctest.Test(t, func(t *testing.T) { // as a date
		s := &script{t: t, answers: []any{after(time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat)), 200}}
		rt, err := idemhttp.NewTransport(s)
		require.NoError(t, err)
		_, err = rt.RoundTrip(newRequest(t, http.MethodPost, nil))
		require.NoError(t, err)
		assert.InDelta(t, 20*time.Second, s.pauses()[0], float64(time.Second))
	})
	// Longer than there is time, up to what no integer can hold.
	for _, text := range []string{"61", " 61 ", "4294967295", "4294967296", "9223372036", "9223372037", "99999999999999999999", strings.Repeat("9", 200), "Fri, 31 Dec 9999 23:59:59 GMT"} {
		scripted(t, []any{after(text), 200}, nil, func(t *testing.T, rt *idemhttp.Transport, s *script) {
			res, err := rt.RoundTrip(newRequest(t, http.MethodPost, nil))
			require.NoError(t, err)
			assert.Equal(t, 409, res.StatusCode, text)
			assert.Len(t, s.at, 1, text)
		})
	}
}

func TestTransportBareKeys(t *testing.T) {
	scripted(t, []any{503, 200}, []idemhttp.TransportOption{idemhttp.WithBareKeys()}, func(t *testing.T, rt *idemhttp.Transport, s *script) {
		_, err := rt.RoundTrip(newRequest(t, http.MethodPost, nil))
		require.NoError(t, err)
		require.Len(t, s.keys, 2)
		assert.Equal(t, s.keys[0], s.keys[1])
		assert.NoError(t, idemhttp.UUIDKey(s.keys[0]), "no quotes")
	})
}

func TestTransportHosts(t *testing.T) {
	hosts := idemhttp.WithHosts("API.example.com", "*.pay.example", "127.0.0.1:8080", "[::1]")
	for address, keyed := range map[string]bool{
		"http://api.example.com/": true, "https://API.EXAMPLE.COM:8443/": true, "http://a.pay.example/": true, "http://a.b.pay.example": true,
		"http://127.0.0.1:8080/": true, "http://[::1]:9/": true,
		"http://example.com/": false, "http://xapi.example.com/": false, "http://pay.example/": false, "http://evilpay.example/": false,
		"http://127.0.0.1:8081/": false, "http://127.0.0.1/": false, "http://api.example.com.evil/": false,
	} {
		for _, own := range []string{"", "mine"} {
			scripted(t, []any{503, 200}, []idemhttp.TransportOption{hosts}, func(t *testing.T, rt *idemhttp.Transport, s *script) {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, nil)
				require.NoError(t, err)
				if own != "" {
					r.Header.Set(idemhttp.KeyHeader, own)
				}
				res, err := rt.RoundTrip(r)
				require.NoError(t, err)
				if keyed {
					assert.Equal(t, 200, res.StatusCode, address)
					return
				}
				assert.Equal(t, 503, res.StatusCode, address)
				assert.Equal(t, []string{own}, s.keys, "as the caller made it, once")
			})
		}
	}
}

func TestTransportStops(t *testing.T) {
	t.Run("at its bound", func(t *testing.T) {
		opts := []idemhttp.TransportOption{idemhttp.WithMaxElapsedTime(10 * time.Second), idemhttp.WithBackoff(time.Second, time.Second), idemhttp.WithMaxAttempts(1000)}
		scripted(t, []any{503}, opts, func(t *testing.T, rt *idemhttp.Transport, s *script) {
			_, err := rt.RoundTrip(newRequest(t, http.MethodPost, nil))
			require.NoError(t, err)
			assert.Greater(t, len(s.at), 5)
			assert.LessOrEqual(t, s.at[len(s.at)-1].Sub(s.at[0]), 10*time.Second)
		})
	})
	t.Run("before a deadline", func(t *testing.T) {
		scripted(t, []any{503}, []idemhttp.TransportOption{idemhttp.WithBackoff(10*time.Second, 10*time.Second)}, func(t *testing.T, rt *idemhttp.Transport, s *script) {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			res, err := rt.RoundTrip(newRequest(t, http.MethodPost, nil).WithContext(ctx))
			require.NoError(t, err)
			assert.Equal(t, 503, res.StatusCode, "better than an error")
			assert.NoError(t, ctx.Err(), "it does not wait in vain")
			assert.Equal(t, 1, s.open)
		})
	})
	t.Run("when cancelled in a pause", func(t *testing.T) {
		enough := errors.New("enough")
		scripted(t, []any{503}, nil, func(t *testing.T, rt *idemhttp.Transport, s *script) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Millisecond, func() { cancel(enough) })
			began := time.Now()
			_, err := rt.RoundTrip(newRequest(t, http.MethodPost, strings.NewReader("x")).WithContext(ctx))
			require.ErrorIs(t, err, enough)
			assert.Equal(t, time.Millisecond, time.Since(began))
			assert.Zero(t, s.open)
		})
	})
	t.Run("when cancelled in an attempt", func(t *testing.T) {
		scripted(t, []any{context.Canceled}, nil, func(t *testing.T, rt *idemhttp.Transport, s *script) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := rt.RoundTrip(newRequest(t, http.MethodPost, nil).WithContext(ctx))
			require.ErrorIs(t, err, context.Canceled)
			assert.Len(t, s.at, 1)
		})
	})
}

func TestInvalidTransportOptions(t *testing.T) {
	for text, option := range map[string]idemhttp.TransportOption{
		"NewTransport: option is nil":               nil,
		"WithMaxAttempts: attempts is 0":            idemhttp.WithMaxAttempts(0),
		"WithMaxElapsedTime: time is 0s":            idemhttp.WithMaxElapsedTime(0),
		"WithBackoff: pauses is 0s and 1s":          idemhttp.WithBackoff(0, time.Second),
		"WithHosts: list is empty":                  idemhttp.WithHosts(),
		`WithHosts: host is ""`:                     idemhttp.WithHosts("api.example.com", ""),
		`WithHosts: host is "*"`:                    idemhttp.WithHosts("*"),
		`WithHosts: host is "*example.com"`:         idemhttp.WithHosts("*example.com"),
		`WithHosts: host is "http://example.com"`:   idemhttp.WithHosts("http://example.com"),
		"WithBackoff: pauses is 2s and 1s; allowed": idemhttp.WithBackoff(2*time.Second, time.Second),
	} {
		rt, err := idemhttp.NewTransport(nil, option)
		require.ErrorIs(t, err, idempotent.ErrInvalidOption)
		assert.Nil(t, rt)
		assert.ErrorContains(t, err, text)
	}
}

// A cutter is a proxy that passes each request on and loses the first answers.
func cutter(t *testing.T, backend http.Handler, lose int) *httptest.Server {
	t.Helper()
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n++
		if n > lose {
			backend.ServeHTTP(rw, r)
			return
		}
		backend.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(server.Close)
	return server
}

// Our client and our server: the answer is lost twice, the charge is made once.
func TestClientAndServer(t *testing.T) {
	t.Parallel()
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rw.WriteHeader(http.StatusCreated)
		_, _ = io.Copy(rw, bytes.NewReader(body))
	}, idemhttp.WithRequiredKey(), idemhttp.WithStrictKey(), idemhttp.WithKeyFormat(idemhttp.UUIDKey))
	proxy := cutter(t, w.server.Config.Handler, 2)
	rt, err := idemhttp.NewTransport(&http.Transport{DisableKeepAlives: true}, idemhttp.WithBackoff(time.Millisecond, time.Millisecond))
	require.NoError(t, err)
	client := &http.Client{Transport: rt}
	defer client.CloseIdleConnections()
	res, err := client.Post(proxy.URL, "text/plain", strings.NewReader("42 EUR"))
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, http.StatusCreated, res.StatusCode)
	assert.Equal(t, "42 EUR", string(body))
	assert.Equal(t, "true", res.Header.Get(idemhttp.ReplayedHeader))
	w.ran(1)
}

var quiet = log.New(io.Discard, "", 0)
