package idemhttp_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
)

// Requirement 6: what is recorded, and how it is replayed.

// raw sends a request over a connection of its own and returns all bytes that come back.
func (w *world) raw(text string) string {
	w.Helper()
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	require.NoError(w, err)
	defer conn.Close()
	_, err = io.WriteString(conn, text)
	require.NoError(w, err)
	all, err := io.ReadAll(conn)
	require.NoError(w, err)
	return string(all)
}

const rawPost = "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nTE: trailers\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"

const replayedLine = "Idempotent-Replayed: true\r\n"

// ownLines are those that the middleware and net/http set for each answer.
var ownLines = regexp.MustCompile(`(?m)^(Date|Idempotency-Key|Idempotent-[A-Za-z]+): .*\r\n`)

// handlers of which a replay must be the same, byte by byte.
var handlers = map[string]http.HandlerFunc{
	"201 with JSON":   created,
	"nothing written": func(http.ResponseWriter, *http.Request) {},
	"200 without a body": func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusOK)
	},
	"204": func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNoContent) },
	"304": func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("ETag", `"1"`)
		rw.WriteHeader(http.StatusNotModified)
	},
	"400": func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "no", http.StatusBadRequest) },
	"500": func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "no", http.StatusInternalServerError) },
	"several values": func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header()["X-List"] = []string{"b", "a", "", "b"}
		rw.Header()["x-lower"] = []string{"as it is"}
		rw.Header()["Empty"] = []string{""}
		fmt.Fprint(rw, "x")
	},
	"sniffed content": func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "<html><body>") },
	"no content type": func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header()["Content-Type"] = nil
		fmt.Fprint(rw, "<html><body>")
	},
	"content length": func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "3")
		fmt.Fprint(rw, "abc")
	},
	"every byte": func(rw http.ResponseWriter, _ *http.Request) {
		var all [256]byte
		for i := range all {
			all[i] = byte(i)
		}
		_, _ = rw.Write(bytes.Repeat(all[:], 1000))
	},
	"trailers": func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Trailer", "X-Sum, X-Absent")
		fmt.Fprint(rw, "body")
		rw.Header().Set("X-Sum", "42")
		rw.Header().Set(http.TrailerPrefix+"X-Late", "43")
	},
	"trailers without a body": func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Trailer", "X-Sum")
		rw.WriteHeader(http.StatusOK)
		rw.Header().Set("X-Sum", "42")
	},
	"flushed": func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(rw, "a")
		rw.(http.Flusher).Flush()
		fmt.Fprint(rw, "b")
	},
	"header after the status": func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusAccepted)
		rw.Header().Set("X-Too-Late", "yes")
		rw.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(rw, "a")
	},
}

func TestReplaysAreTheSameBytes(t *testing.T) {
	t.Parallel()
	for name, handle := range handlers {
		t.Run(name, func(t *testing.T) {
			w := serve(t, handle)
			first := w.raw(rawPost)
			again := w.raw(rawPost)
			w.ran(1)
			require.NotContains(t, first, replayedLine)
			require.Contains(t, again, replayedLine)
			assert.Equal(t, ownLines.ReplaceAllString(first, ""), ownLines.ReplaceAllString(again, ""))
		})
	}
}

// What the client gets is what it would get without the middleware.
func TestResponsesAreThoseOfTheBareHandler(t *testing.T) {
	t.Parallel()
	for name, handle := range handlers {
		t.Run(name, func(t *testing.T) {
			w := serve(t, handle)
			guarded := parse(t, w.raw(rawPost))
			bare := parse(t, w.raw(strings.Replace(rawPost, "Idempotency-Key: k\r\n", "", 1)))
			assert.Equal(t, bare.StatusCode, guarded.StatusCode)
			assert.Equal(t, bare.body, guarded.body)
			for _, a := range []answer{bare, guarded} { // what follows from how the body is framed
				own(a.Header)
				a.Header.Del("Content-Length")
			}
			if name == "sniffed content" {
				assert.Equal(t, "text/html; charset=utf-8", guarded.Header.Get("Content-Type"))
			}
			assert.Equal(t, bare.Header, guarded.Header)
			for name, values := range bare.Trailer {
				assert.Equal(t, values, guarded.Trailer[name])
			}
		})
	}
}

func parse(t testing.TB, raw string) answer {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), nil)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return answer{res, string(body)}
}

func TestTrailersArrive(t *testing.T) {
	t.Parallel()
	w := serve(t, handlers["trailers"])
	for range 2 {
		got := parse(t, w.raw(rawPost))
		assert.Equal(t, "42", got.Trailer.Get("X-Sum"))
		assert.Equal(t, "43", got.Trailer.Get("X-Late"))
		assert.Equal(t, "body", got.body)
	}
}

func TestFailuresAreRecordedBusyIsNot(t *testing.T) {
	t.Parallel()
	for status, recorded := range map[int]bool{400: true, 402: true, 409: true, 500: true, 501: true, 507: true, 425: false, 429: false, 503: false} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Retry-After", "9")
				http.Error(rw, "busy", status)
			})
			for i := range 2 {
				got := w.post("k", "")
				assert.Equal(t, status, got.StatusCode)
				assert.Equal(t, "busy\n", got.body)
				assert.Equal(t, "9", got.Header.Get("Retry-After"))
				assert.Equal(t, recorded && i == 1, got.replayed())
			}
			if recorded {
				w.ran(1)
				return
			}
			w.ran(2)
			assert.Empty(t, w.stored(), "the key is free")
		})
	}
}

// Those who wait for a response that is not recorded get it too: a server that is busy is not
// asked again by each of them.
func TestUnrecordedResponseIsShared(t *testing.T) {
	t.Parallel()
	s := newSlow()
	w := serve(t, func(rw http.ResponseWriter, _ *http.Request) {
		s.running <- true
		<-s.finish
		rw.Header().Set("Retry-After", "9")
		http.Error(rw, "busy", http.StatusServiceUnavailable)
	})
	first := w.async(request{key: "k"})
	within(t, s.running)
	joined := w.async(request{key: "k"})
	w.events.Wait(t, idempotent.EventJoined, 1)
	close(s.finish)
	for _, c := range []<-chan answer{first, joined} {
		got := within(t, c)
		assert.Equal(t, http.StatusServiceUnavailable, got.StatusCode)
		assert.Equal(t, "busy\n", got.body)
		assert.Equal(t, "9", got.Header.Get("Retry-After"))
		assert.False(t, got.replayed(), "a replay is final, this is not")
	}
	w.ran(1)
}

func TestWhatIsRecordedByOption(t *testing.T) {
	t.Parallel()
	w := serve(t, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("X-Undone", "yes")
		http.Error(rw, "rolled back", http.StatusInternalServerError)
	}, idemhttp.WithShouldRecord(func(e idemhttp.Ending) idemhttp.Verdict {
		if e.Header.Get("X-Undone") != "" {
			return idemhttp.Free
		}
		return e.Verdict()
	}))
	w.post("k", "")
	assert.False(t, w.post("k", "").replayed())
	w.ran(2)
}

func TestHeadersThatAreNotRecorded(t *testing.T) {
	t.Parallel()
	handle := func(rw http.ResponseWriter, _ *http.Request) {
		h := rw.Header()
		h.Set("Date", "Thu, 01 Jan 1970 00:00:00 GMT")
		h.Set("Set-Cookie", "session=1")
		h.Set("Keep-Alive", "timeout=5")
		h.Set("Connection", "close, X-Hop")
		h.Set("X-Hop", "1")
		h.Set("X-Kept", "1")
		fmt.Fprint(rw, "x")
	}
	w := serve(t, handle)
	first := w.post("k", "")
	assert.Equal(t, "session=1", first.Header.Get("Set-Cookie"), "the first caller gets them")
	assert.Equal(t, "Thu, 01 Jan 1970 00:00:00 GMT", first.Header.Get("Date"))
	assert.Equal(t, "1", first.Header.Get("X-Hop"))
	again := w.post("k", "")
	assert.True(t, again.replayed())
	assert.Equal(t, "1", again.Header.Get("X-Kept"))
	for _, name := range []string{"Set-Cookie", "Keep-Alive", "X-Hop"} {
		assert.Empty(t, again.Header.Values(name), name)
	}
	assert.NotContains(t, again.Header.Get("Date"), "1970")

	w = serve(t, handle, idemhttp.WithUnrecordedHeaders("x-kept"))
	w.post("k", "")
	again = w.post("k", "")
	assert.Equal(t, "session=1", again.Header.Get("Set-Cookie"), "the list replaces the default")
	assert.Empty(t, again.Header.Values("X-Kept"))
	assert.Empty(t, again.Header.Values("X-Hop"), "hop-by-hop fields never are")
}

// What somebody in front of the middleware sets belongs to the request at hand.
func TestHeadersOfThoseInFront(t *testing.T) {
	t.Parallel()
	w := serve(t, func(rw http.ResponseWriter, _ *http.Request) {
		assert.NotEmpty(t, rw.Header().Get("X-Request-Id"), "the handler sees them")
		rw.Header().Set("X-Changed", "by the handler")
		rw.Header().Del("X-Removed")
		rw.Header().Add("Vary", "Accept")
	})
	guarded := w.server.Config.Handler
	n := 0
	w.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n++
		rw.Header().Set("X-Request-Id", fmt.Sprint(n))
		rw.Header().Set("X-Changed", "in front")
		rw.Header().Set("X-Removed", "in front")
		rw.Header().Set("Vary", "Origin")
		guarded.ServeHTTP(rw, r)
	})
	for i := range 2 {
		got := w.post("k", "")
		assert.Equal(t, fmt.Sprint(i+1), got.Header.Get("X-Request-Id"))
		assert.Equal(t, "by the handler", got.Header.Get("X-Changed"))
		assert.Empty(t, got.Header.Values("X-Removed"))
		assert.Equal(t, []string{"Origin", "Accept"}, got.Header.Values("Vary"))
	}
	w.ran(1)
}

// The client has nothing before the record is stored.
func TestAnswerComesAfterTheRecord(t *testing.T) {
	t.Parallel()
	w := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		created(rw, r)
		rw.(http.Flusher).Flush()
	})
	for i := range 20 {
		key := fmt.Sprint("k", i)
		w.post(key, "")
		assert.Equal(t, i+1, w.events.Count(idempotent.EventRecorded))
	}
}

func TestRecordOutlivesTheServer(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	want := w.post("k", "")
	w.server.Close()
	require.NoError(t, w.mw.Close())
	next := serveOn(t, w.redis, created)
	got := next.post("k", "")
	assert.True(t, got.replayed())
	assert.Equal(t, want.body, got.body)
	next.ran(0)
}
