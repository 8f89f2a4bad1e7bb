package idemhttp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
)

// The table of endings: what a handler's end means for its key.

// attempts returns a channel of the attempts that a handler saw.
func attempts(handle http.HandlerFunc) (chan int, http.HandlerFunc) {
	seen := make(chan int, 10)
	return seen, func(rw http.ResponseWriter, r *http.Request) {
		seen <- attempt(r)
		handle(rw, r)
	}
}

// unknown checks that an ending is neither recorded nor a reason to begin again: under Rerun the next
// request is attempt 2, under Refuse it is refused.
func unknown(t *testing.T, handle http.HandlerFunc, wrap func(http.Handler) http.Handler, opts ...idemhttp.Option) {
	t.Helper()
	for _, policy := range []idempotent.InterruptedPolicy{idempotent.Rerun, idempotent.Refuse} {
		seen, counted := attempts(handle)
		w := serve(t, func(rw http.ResponseWriter, r *http.Request) { wrap(counted).ServeHTTP(rw, r) }, append(opts, idemhttp.WithInterrupted(policy))...)
		w.try("k")
		assert.Equal(t, 1, within(t, seen))
		w.events.Wait(t, idempotent.EventInterrupted, 1)
		again := w.try("k")
		if policy == idempotent.Refuse {
			require.NotNil(t, again.Response)
			again.problem(t, http.StatusInternalServerError, idemhttp.TypeInterrupted)
			assert.Empty(t, seen)
			continue
		}
		assert.Equal(t, 2, within(t, seen), "the handler is told that an earlier attempt may have had its effect")
		assert.False(t, again.Response != nil && again.replayed())
	}
}

func bare(h http.Handler) http.Handler { return h }

// try sends a request whose connection may be cut: then the answer has no response.
func (w *world) try(key string) answer {
	w.Helper()
	res, err := w.server.Client().Do(request{key: key}.build(w, w.server.URL))
	if err != nil {
		return answer{}
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return answer{res, string(body)}
}

// status answers with a status.
func status(code int) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "x", code) }
}

func TestGatewayErrorsAreUnknown(t *testing.T) {
	for _, code := range []int{408, 499, 502, 504, 520, 522, 524, 527, 598, 599} {
		t.Run(fmt.Sprint(code), func(t *testing.T) { unknown(t, status(code), bare) })
	}
}

// A timeout inside answers for a handler that is still at work.
func TestTimeoutsInsideAreUnknown(t *testing.T) {
	pay := func(rw http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		created(rw, r)
	}
	const limit = 5 * time.Millisecond
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"http.TimeoutHandler": func(h http.Handler) http.Handler { return http.TimeoutHandler(h, limit, "too slow") },
		"a context, 503": func(h http.Handler) http.Handler {
			return withTimeout(h, limit, http.StatusServiceUnavailable)
		},
		"a context, 504": func(h http.Handler) http.Handler { return withTimeout(h, limit, http.StatusGatewayTimeout) },
		"a context of a context": func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				ctx, cancel := context.WithCancel(context.WithValue(r.Context(), markTest{}, 1))
				defer cancel()
				withTimeout(h, limit, http.StatusServiceUnavailable).ServeHTTP(rw, r.WithContext(ctx))
			})
		},
	} {
		t.Run(name, func(t *testing.T) { unknown(t, pay, wrap) })
	}
}

type markTest struct{}

// withTimeout is what the timeouts of frameworks do.
func withTimeout(next http.Handler, limit time.Duration, status int) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		next.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx))
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			rw.WriteHeader(status)
		}
	})
}

func TestFlushedBusyIsUnknown(t *testing.T) {
	for _, code := range []int{425, 429, 503} {
		unknown(t, func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(code)
			rw.(http.Flusher).Flush()
		}, bare)
	}
}

// backend is a server that does what handle says, and a proxy in front of it.
func backend(t *testing.T, handle http.HandlerFunc) http.Handler {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	target, err := url.Parse(server.URL)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	return proxy
}

// A proxy inside whose backend refuses, or breaks off.
func TestProxyInside(t *testing.T) {
	t.Parallel()
	t.Run("refuses", func(t *testing.T) {
		gone := httptest.NewServer(nil)
		gone.Close()
		target, err := url.Parse(gone.URL)
		require.NoError(t, err)
		proxy := httputil.NewSingleHostReverseProxy(target)
		proxy.ErrorLog = log.New(io.Discard, "", 0)
		unknown(t, proxy.ServeHTTP, bare)
	})
	t.Run("breaks off", func(t *testing.T) {
		proxy := backend(t, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(rw, "part")
			rw.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		unknown(t, proxy.ServeHTTP, bare)
	})
	t.Run("chunks break off", func(t *testing.T) {
		proxy := backend(t, func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, "part")
			rw.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		unknown(t, proxy.ServeHTTP, bare)
	})
}

func TestAbortIsUnknown(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]any{"bare": http.ErrAbortHandler, "wrapped": fmt.Errorf("proxy: %w", http.ErrAbortHandler)} {
		t.Run(name, func(t *testing.T) {
			unknown(t, func(http.ResponseWriter, *http.Request) { panic(value) }, bare)
			w := serve(t, func(http.ResponseWriter, *http.Request) { panic(value) })
			assert.Equal(t, value, w.panics("k"), "the panic goes on to net/http")
			assert.Empty(t, w.raw(strings.Replace(rawPost, "Key: k", "Key: other", 1)), "net/http cuts the connection")
		})
	}
}

func TestShortResponseIsUnknown(t *testing.T) {
	t.Parallel()
	short := func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "10")
		rw.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(rw, "half")
	}
	unknown(t, short, bare)
	w := serve(t, short)
	first := w.raw(rawPost)
	assert.Contains(t, first, "Content-Length: 10\r\n", "the client sees that something is missing")
	assert.NotContains(t, first, "Idempotent-Replayed")
}

// A failure after the handler's own context has ended is that of the context.
func TestFailuresAfterTheContextAreUnknown(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]http.HandlerFunc{
		"nothing": func(http.ResponseWriter, *http.Request) {},
		"400":     status(400), "404": status(404), "429": status(429), "500": status(500), "503": status(503),
		"a panic": func(_ http.ResponseWriter, r *http.Request) { panic(r.Context().Err()) },
	} {
		t.Run(name, func(t *testing.T) {
			running := make(chan bool, 1)
			seen, counted := attempts(func(rw http.ResponseWriter, r *http.Request) {
				if attempt(r) > 1 {
					created(rw, r)
					return
				}
				running <- true
				<-r.Context().Done()
				handle(rw, r)
			})
			w := serve(t, counted, idemhttp.WithCancelOnDisconnect())
			ctx, leave := context.WithCancel(t.Context())
			r := request{key: "k"}.build(t, w.server.URL).WithContext(ctx)
			go func() { _, _ = w.server.Client().Do(r) }()
			within(t, running)
			leave()
			w.events.Wait(t, idempotent.EventInterrupted, 1)
			assert.Equal(t, http.StatusCreated, w.post("k", "").StatusCode)
			assert.Equal(t, 1, within(t, seen))
			assert.Equal(t, 2, within(t, seen))
		})
	}
}

func TestNoEffectFreesTheKey(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusInternalServerError, http.StatusGatewayTimeout, http.StatusServiceUnavailable} {
		seen, counted := attempts(func(rw http.ResponseWriter, r *http.Request) {
			_, _ = r.Context().Deadline()
			idemhttp.NoEffect(r.Context())
			rw.WriteHeader(code)
		})
		w := serve(t, counted, idemhttp.WithInterrupted(idempotent.Refuse))
		for range 2 {
			got := w.post("k", "")
			assert.Equal(t, code, got.StatusCode)
			assert.Empty(t, got.Header.Get(idemhttp.UnrecordedHeader))
			assert.Equal(t, 1, within(t, seen))
		}
		assert.Empty(t, w.stored())
	}
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		idemhttp.NoEffect(r.Context())
		idemhttp.OutcomeUnknown(r.Context())
	})
	w.post("k", "")
	assert.Len(t, w.stored(), 1, "OutcomeUnknown goes before")
	idemhttp.NoEffect(t.Context()) // no request, no effect
}

func TestUnknownIsSaid(t *testing.T) {
	t.Parallel()
	w := serve(t, status(http.StatusGatewayTimeout))
	assert.Equal(t, "true", w.post("k", "").Header.Get(idemhttp.UnrecordedHeader))
	w = serve(t, status(http.StatusServiceUnavailable))
	assert.Empty(t, w.post("k", "").Header.Get(idemhttp.UnrecordedHeader), "the key is free")
}

// An option judges what it knows, and cannot make a broken response final.
func TestShouldRecordIsNotAskedAboutBrokenResponses(t *testing.T) {
	t.Parallel()
	always := idemhttp.WithShouldRecord(func(idemhttp.Ending) idemhttp.Verdict { return idemhttp.Record })
	unknown(t, func(rw http.ResponseWriter, _ *http.Request) { rw.Header().Set("Content-Length", "1") }, bare, always)
	unknown(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, bare, always)
	unknown(t, func(_ http.ResponseWriter, r *http.Request) { idemhttp.OutcomeUnknown(r.Context()) }, bare, always)
	unknown(t, created, bare, idemhttp.WithShouldRecord(func(idemhttp.Ending) idemhttp.Verdict { return 0 }))

	w := serve(t, status(http.StatusBadGateway), always)
	w.post("k", "")
	assert.True(t, w.post("k", "").replayed())

	var got idemhttp.Ending
	w = serve(t, func(rw http.ResponseWriter, r *http.Request) {
		_, _ = r.Context().Deadline()
		rw.Header().Set("X-A", "1")
		rw.WriteHeader(http.StatusTeapot)
		rw.(http.Flusher).Flush()
	}, idemhttp.WithShouldRecord(func(e idemhttp.Ending) idemhttp.Verdict {
		got = e
		return e.Verdict()
	}))
	w.post("k", "")
	assert.Equal(t, http.StatusTeapot, got.Status)
	assert.Equal(t, "1", got.Header.Get("X-A"))
	assert.Equal(t, 1, got.Attempt)
	assert.True(t, got.Flushed)
	assert.True(t, got.Deadline)
}

// Our own transport retries a 503 of a timeout inside: the second time, the handler knows.
func TestTransportAndATimeoutInside(t *testing.T) {
	t.Parallel()
	seen, counted := attempts(func(_ http.ResponseWriter, r *http.Request) {
		if attempt(r) == 1 {
			<-r.Context().Done()
		}
	})
	w := serve(t, http.TimeoutHandler(counted, 5*time.Millisecond, "").ServeHTTP)
	rt, err := idemhttp.NewTransport(nil, idemhttp.WithBackoff(time.Millisecond, time.Millisecond))
	require.NoError(t, err)
	res, err := (&http.Client{Transport: rt}).Post(w.server.URL, "text/plain", bytes.NewReader([]byte("x")))
	require.NoError(t, err)
	defer res.Body.Close()
	assert.Equal(t, http.StatusOK, res.StatusCode)
	assert.Equal(t, 1, within(t, seen))
	assert.Equal(t, 2, within(t, seen))
	assert.Empty(t, seen)
}
