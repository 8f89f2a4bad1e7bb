package idemhttp_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
)

func secretive(code int) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("X-Secret", "hunter2")
		rw.Header().Set("Content-Length", "21")
		rw.Header().Set("Trailer", "X-Sum")
		rw.WriteHeader(code)
		_, _ = io.WriteString(rw, `{"password":"hunter2"`)
		rw.Header().Set("X-Sum", "hunter2")
	}
}

func redact(r *idemhttp.Recorded) {
	r.Status = http.StatusTeapot // has no effect
	r.Header.Set("X-Secret", "redacted")
	r.Header.Set("X-New", "1")
	r.Trailer.Del("X-Sum")
	r.Body = bytes.ReplaceAll(r.Body, []byte("hunter2"), []byte("***"))
}

// dump is all that is stored in Redis.
func (w *world) dump() string {
	w.Helper()
	var all strings.Builder
	for _, name := range w.stored() {
		value, err := w.redis.Get(w.Context(), name).Result()
		require.NoError(w, err)
		all.WriteString(name + value)
	}
	return all.String()
}

func TestRedact(t *testing.T) {
	t.Parallel()
	w := serve(t, secretive(http.StatusCreated), idemhttp.WithRedact(redact))
	first := w.post("k", "")
	assert.Equal(t, `{"password":"hunter2"`, first.body, "the first client has it as it was")
	assert.Equal(t, "hunter2", first.Header.Get("X-Secret"))
	assert.Empty(t, first.Header.Get(idemhttp.RedactedHeader))
	assert.NotContains(t, w.dump(), "hunter2")
	again := w.post("k", "")
	require.True(t, again.replayed())
	assert.Equal(t, "true", again.Header.Get(idemhttp.RedactedHeader))
	assert.Equal(t, http.StatusCreated, again.StatusCode)
	assert.Equal(t, `{"password":"***"`, again.body)
	assert.Equal(t, "redacted", again.Header.Get("X-Secret"))
	assert.Equal(t, "1", again.Header.Get("X-New"))
	w.ran(1)
}

// Those who wait get what is stored, too: also of a response that only passes through Redis.
func TestRedactForThoseWhoWait(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusCreated, http.StatusTooManyRequests} {
		s := newSlow()
		w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
			s.running <- true
			<-s.finish
			secretive(code)(rw, r)
		}, idemhttp.WithRedact(redact))
		first := w.async(request{key: "k"})
		within(t, s.running)
		joined := w.async(request{key: "k"})
		w.events.Wait(t, idempotent.EventJoined, 1)
		close(s.finish)
		assert.Equal(t, `{"password":"hunter2"`, within(t, first).body)
		got := within(t, joined)
		assert.Equal(t, code, got.StatusCode)
		assert.Equal(t, `{"password":"***"`, got.body)
		assert.Equal(t, code == http.StatusCreated, got.Header.Get(idemhttp.RedactedHeader) == "true")
		w.ran(1)
	}
}

func TestRedactPanics(t *testing.T) {
	t.Parallel()
	var logged lines
	w := serve(t, secretive(http.StatusCreated), idemhttp.WithRedact(func(*idemhttp.Recorded) { panic("hunter2") }), idemhttp.WithLogger(textLog(&logged)))
	assert.Equal(t, `{"password":"hunter2"`, w.post("k", "").body)
	w.post("k", "").problem(t, http.StatusInternalServerError, idemhttp.TypeResponseTooLarge)
	assert.NotContains(t, w.dump(), "hunter2")
	assert.Contains(t, logged.String(), "WithRedact panicked")
	assert.NotContains(t, logged.String(), "hunter2")
	w.ran(1)
}

// The limit counts header fields and trailers.
func TestResponseLimitCountsHeaders(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]http.HandlerFunc{
		"header": func(rw http.ResponseWriter, _ *http.Request) { rw.Header().Set("X-Large", strings.Repeat("x", 2000)) },
		"many fields": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header()["X"] = strings.Split(strings.Repeat("x", 400), "")
		},
		"trailer": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set(http.TrailerPrefix+"X", strings.Repeat("x", 2000))
		},
		"all together": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("X", strings.Repeat("x", 600))
			_, _ = io.WriteString(rw, strings.Repeat("x", 600))
		},
		"after redaction": func(rw http.ResponseWriter, _ *http.Request) { rw.Header().Set("X-Grow", "1") },
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, handle, idemhttp.WithResponseLimit(1000), idemhttp.WithRedact(func(r *idemhttp.Recorded) {
				if r.Header.Get("X-Grow") != "" {
					r.Body = make([]byte, 2000)
				}
			}))
			w.post("k", "")
			w.post("k", "").problem(t, http.StatusInternalServerError, idemhttp.TypeResponseTooLarge)
			w.ran(1)
		})
	}
}

func TestFirstAnswerSaysThatTheKeyWasHonoured(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	first := w.post(" \"a key\" ", "")
	assert.Equal(t, `"a key"`, first.Header.Get(idemhttp.KeyHeader))
	assert.Equal(t, "false", first.Header.Get(idemhttp.ReplayedHeader))
	assert.Empty(t, first.Header.Get(idemhttp.ExpiresHeader))
	again := w.post(`"a key"`, "")
	assert.Equal(t, "true", again.Header.Get(idemhttp.ReplayedHeader))
	until, err := http.ParseTime(again.Header.Get(idemhttp.ExpiresHeader))
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(idemhttp.DefaultTTL), until, time.Minute)

	w = serve(t, created, idemhttp.WithPlainFirstAnswer(), idemhttp.WithTTL(time.Hour))
	first = w.post("k", "")
	assert.Empty(t, first.Header.Get(idemhttp.KeyHeader))
	assert.Empty(t, first.Header.Get(idemhttp.ReplayedHeader))
	again = w.post("k", "")
	until, err = http.ParseTime(again.Header.Get(idemhttp.ExpiresHeader))
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(time.Hour), until, time.Minute)
}

func TestSuperfluousWriteHeaderIsLogged(t *testing.T) {
	t.Parallel()
	var logged lines
	w := serve(t, func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "x")
		rw.WriteHeader(http.StatusBadGateway)
	}, idemhttp.WithLogger(textLog(&logged)))
	assert.Equal(t, http.StatusOK, w.post("k", "").StatusCode)
	assert.Contains(t, logged.String(), "superfluous WriteHeader")
	assert.Contains(t, logged.String(), "redact_test.go:")
	assert.Contains(t, logged.String(), w.mw.Instance("caller ", "", "k"))
}
