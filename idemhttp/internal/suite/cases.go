package suite

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
)

var quiet = log.New(io.Discard, "", 0) // panics and cut connections are part of the tests

// Cases are the behaviours of the middleware.
var Cases = []Case{
	{"a replay is the first response", replayIsTheFirstResponse},
	{"without a key it passes untouched", passesUntouched},
	{"a required key that is missing", requiredKey},
	{"a key that is not one", badKey},
	{"another request under the key", anotherRequest},
	{"the handler gets the request", handlerGetsTheRequest},
	{"a body that is too large", bodyTooLarge},
	{"duplicates wait for the response", duplicatesWait},
	{"no wait", noWait},
	{"busy frees the key", busyFreesTheKey},
	{"a gateway error is unknown", gatewayErrorIsUnknown},
	{"a timeout inside is unknown", timeoutInsideIsUnknown},
	{"OutcomeUnknown and Refuse", unknownIsRefused},
	{"a panic is recorded", panicIsRecorded},
	{"a response that breaks off is unknown", breaksOff},
	{"a short response is unknown", shortResponse},
	{"the client disconnects", clientDisconnects},
	{"what is flushed arrives", flushed},
	{"trailers", trailers},
	{"a response that is too large", responseTooLarge},
	{"Redis is down", redisDown},
}

func replayIsTheFirstResponse(t *testing.T, f Framework) {
	for name, handle := range map[string]http.HandlerFunc{
		"JSON": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header()["X-List"] = []string{"b", "a"}
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, `{"id":%q}`, f.Param(r))
		},
		"nothing": func(http.ResponseWriter, *http.Request) {},
		"204":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"303": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-To", "/a")
			w.WriteHeader(http.StatusSeeOther)
		},
		"400":      func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadRequest) },
		"500":      func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) },
		"no state": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "text") },
	} {
		t.Run(name, func(t *testing.T) {
			s := f.serve(t, handle)
			first, again := s.send("7", "k", "x"), s.send("7", "k", "x")
			s.ran(1)
			assert.False(t, first.replayed())
			assert.True(t, again.replayed())
			assert.Equal(t, first.status(), again.status())
			assert.Equal(t, first.body, again.body)
			for _, a := range []answer{first, again} {
				for _, own := range []string{"Date", idemhttp.KeyHeader, idemhttp.ReplayedHeader, idemhttp.ExpiresHeader} {
					a.Header.Del(own)
				}
			}
			assert.Equal(t, first.Header, again.Header)
		})
	}
}

func ok(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, "done")
}

func passesUntouched(t *testing.T, f Framework) {
	s := f.serve(t, ok)
	for range 2 {
		got := s.send("7", "", "x")
		assert.Equal(t, http.StatusCreated, got.status())
		assert.Equal(t, "done", got.body)
	}
	s.ran(2)
}

func requiredKey(t *testing.T, f Framework) {
	s := f.serve(t, ok, idemhttp.WithRequiredKey())
	s.problem(s.send("7", "", ""), http.StatusBadRequest, idemhttp.TypeKeyMissing)
	s.ran(0)
}

func badKey(t *testing.T, f Framework) {
	s := f.serve(t, ok)
	s.problem(s.send("7", `"open`, ""), http.StatusBadRequest, idemhttp.TypeKeyInvalid)
	s.ran(0)
}

func anotherRequest(t *testing.T, f Framework) {
	s := f.serve(t, ok)
	s.send("7", "k", "x")
	s.problem(s.send("7", "k", "y"), http.StatusUnprocessableEntity, idemhttp.TypeKeyReused)
	s.problem(s.send("8", "k", "x"), http.StatusUnprocessableEntity, idemhttp.TypeKeyReused)
	s.ran(1)
	assert.False(t, s.send("7", "other", "x").replayed())
}

func handlerGetsTheRequest(t *testing.T, f Framework) {
	s := f.serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		assert.Equal(t, 1, attempt(r))
		fmt.Fprint(w, f.Param(r), string(body))
	})
	assert.Equal(t, "7body", s.send("7", "k", "body").body)
	assert.Equal(t, "8", s.send("8", "l", "").body)
}

func bodyTooLarge(t *testing.T, f Framework) {
	s := f.serve(t, ok, idemhttp.WithRequestLimit(10))
	s.problem(s.send("7", "k", strings.Repeat("x", 11)), http.StatusRequestEntityTooLarge, idemhttp.TypeRequestTooLarge)
	assert.Equal(t, http.StatusCreated, s.send("7", "k", strings.Repeat("x", 10)).status())
	s.ran(1)
}

func duplicatesWait(t *testing.T, f Framework) {
	running, finish := make(chan bool, 1), make(chan bool)
	s := f.serve(t, func(w http.ResponseWriter, r *http.Request) {
		running <- true
		<-finish
		ok(w, r)
	})
	first := s.async("7", "k")
	within(t, running)
	var others []<-chan answer
	for range 5 {
		others = append(others, s.async("7", "k"))
	}
	s.events.Wait(t, idempotent.EventJoined, 5)
	close(finish)
	assert.Equal(t, "done", within(t, first).body)
	for _, other := range others {
		got := within(t, other)
		assert.True(t, got.replayed())
		assert.Equal(t, "done", got.body)
	}
	s.ran(1)
}

func noWait(t *testing.T, f Framework) {
	running, finish := make(chan bool, 1), make(chan bool)
	s := f.serve(t, func(http.ResponseWriter, *http.Request) {
		running <- true
		<-finish
	}, idemhttp.WithNoWait())
	first := s.async("7", "k")
	within(t, running)
	got := s.send("7", "k", "")
	s.problem(got, http.StatusConflict, idemhttp.TypeInProgress)
	assert.Equal(t, "1", got.Header.Get("Retry-After"))
	close(finish)
	within(t, first)
	s.ran(1)
}

// attempts sends two requests under one key and returns the attempts that the handler saw.
func attempts(t *testing.T, f Framework, handle http.HandlerFunc, opts ...idemhttp.RouteOption) (seen []int, first, again answer) {
	numbers := make(chan int, 10)
	s := f.serve(t, func(w http.ResponseWriter, r *http.Request) {
		numbers <- attempt(r)
		handle(w, r)
	}, opts...)
	first, again = s.send("7", "k", ""), s.send("7", "k", "")
	for len(numbers) > 0 {
		seen = append(seen, <-numbers)
	}
	return seen, first, again
}

func busyFreesTheKey(t *testing.T, f Framework) {
	for _, code := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		seen, first, again := attempts(t, f, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", code) })
		assert.Equal(t, []int{1, 1}, seen)
		assert.Equal(t, code, first.status())
		assert.Equal(t, code, again.status())
		assert.False(t, again.replayed())
	}
}

func gatewayErrorIsUnknown(t *testing.T, f Framework) {
	for _, code := range []int{http.StatusBadGateway, http.StatusGatewayTimeout} {
		seen, first, again := attempts(t, f, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "gone", code) })
		assert.Equal(t, []int{1, 2}, seen)
		assert.Equal(t, "true", first.Header.Get(idemhttp.UnrecordedHeader))
		assert.False(t, again.replayed())
	}
}

func timeoutInsideIsUnknown(t *testing.T, f Framework) {
	slow := http.TimeoutHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), time.Millisecond, "")
	seen, first, _ := attempts(t, f, slow.ServeHTTP)
	assert.Equal(t, []int{1, 2}, seen)
	assert.Equal(t, http.StatusServiceUnavailable, first.status())
}

func unknownIsRefused(t *testing.T, f Framework) {
	seen, first, again := attempts(t, f, func(w http.ResponseWriter, r *http.Request) {
		idemhttp.OutcomeUnknown(r.Context())
		http.Error(w, "lost", http.StatusInternalServerError)
	}, idemhttp.WithInterrupted(idempotent.Refuse))
	assert.Equal(t, []int{1}, seen)
	assert.Equal(t, "lost\n", first.body)
	assert.Contains(t, again.body, idemhttp.TypeInterrupted)
}

func panicIsRecorded(t *testing.T, f Framework) {
	seen, first, again := attempts(t, f, func(http.ResponseWriter, *http.Request) { panic("boom") })
	assert.Equal(t, []int{1}, seen)
	assert.Zero(t, first.status(), "net/http cuts the connection")
	assert.Contains(t, again.body, idemhttp.TypePanicked)
}

func breaksOff(t *testing.T, f Framework) {
	seen, first, _ := attempts(t, f, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	assert.Equal(t, []int{1, 2}, seen)
	assert.Zero(t, first.status())
}

func shortResponse(t *testing.T, f Framework) {
	seen, first, _ := attempts(t, f, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "half")
	})
	assert.Equal(t, []int{1, 2}, seen)
	assert.Zero(t, first.status(), "the client sees that something is missing")
}

func clientDisconnects(t *testing.T, f Framework) {
	running, finish := make(chan bool, 1), make(chan bool)
	s := f.serve(t, func(w http.ResponseWriter, r *http.Request) {
		if attempt(r) == 1 {
			running <- true
			<-finish
			assert.NoError(t, r.Context().Err())
		}
		fmt.Fprint(w, f.Param(r))
	})
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan answer, 1)
	go func() { gone <- s.do(ctx, "7", "k", nil) }()
	within(t, running)
	leave()
	assert.Zero(t, within(t, gone).status())
	s.send("8", "", "") // takes the framework's context, if that is free too early
	close(finish)
	s.events.Wait(t, idempotent.EventRecorded, 1)
	got := s.send("7", "k", "")
	assert.True(t, got.replayed())
	assert.Equal(t, "7", got.body)
}

func flushed(t *testing.T, f Framework) {
	s := f.serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, part := range []string{"a", "b"} {
			_, _ = io.WriteString(w, part)
			assert.NoError(t, http.NewResponseController(w).Flush())
		}
	})
	for range 2 {
		assert.Equal(t, "ab", s.send("7", "k", "").body)
	}
	s.ran(1)
}

func trailers(t *testing.T, f Framework) {
	s := f.serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "42")
	})
	for range 2 {
		got := s.send("7", "k", "")
		assert.Equal(t, "body", got.body)
		assert.Equal(t, "42", got.Trailer.Get("X-Sum"))
	}
	s.ran(1)
}

func responseTooLarge(t *testing.T, f Framework) {
	s := f.serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 2000)) }, idemhttp.WithResponseLimit(1000))
	assert.Len(t, s.send("7", "k", "").body, 2000)
	s.problem(s.send("7", "k", ""), http.StatusInternalServerError, idemhttp.TypeResponseTooLarge)
	s.ran(1)
}

func redisDown(t *testing.T, f Framework) {
	s := f.serve(t, ok)
	s.redis.Fail("LOADING")
	s.problem(s.send("7", "k", ""), http.StatusServiceUnavailable, idemhttp.TypeUnavailable)
	s.ran(0)
}
