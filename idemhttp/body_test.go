package idemhttp_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/idemhttp"
)

// Bodies that come slowly, lie about themselves or end too early: no key is held for them.

func (w *world) dial() net.Conn {
	w.Helper()
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	require.NoError(w, err)
	w.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestSlowBodyHoldsNoKey(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	conn := w.dial()
	// With Expect, the server says when it waits for the body: then it is in the middleware.
	_, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Type: text/plain\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	require.NoError(t, err)
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
	_, err = io.WriteString(conn, "x") // and no more
	require.NoError(t, err)
	assert.Empty(t, w.stored())

	q := request{key: "k", body: "xy", header: http.Header{"Content-Type": {"text/plain"}}}
	assert.Equal(t, http.StatusCreated, w.send(q).StatusCode, "nobody has to wait for it")
	_, err = io.WriteString(conn, "y")
	require.NoError(t, err)
	_, err = in.ReadString('\n')
	require.NoError(t, err)
	late, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	assert.Equal(t, "true", late.Header.Get(idemhttp.ReplayedHeader))
	w.ran(1)
}

func TestSlowBodyTimesOut(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	guarded := w.server.Config.Handler
	w.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		// What http.Server.ReadTimeout does, without waiting for it.
		assert.NoError(t, http.NewResponseController(rw).SetReadDeadline(time.Now().Add(-time.Second)))
		guarded.ServeHTTP(rw, r)
	})
	conn := w.dial()
	_, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 2\r\n\r\n")
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusRequestTimeout, res.StatusCode)
	w.ran(0)
	assert.Empty(t, w.stored())
}

func TestBodiesThatLie(t *testing.T) {
	t.Parallel()
	const head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIdempotency-Key: k\r\n"
	for name, rest := range map[string]string{
		"shorter than announced":    "Content-Length: 10\r\n\r\nabc",
		"chunk cut short":           "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
		"no last chunk":             "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
		"chunk size is no number":   "Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
		"chunk longer than it says": "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, created)
			conn := w.dial()
			_, err := io.WriteString(conn, head+rest)
			require.NoError(t, err)
			require.NoError(t, conn.(*net.TCPConn).CloseWrite())
			all, err := io.ReadAll(conn)
			require.NoError(t, err)
			assert.True(t, strings.HasPrefix(string(all), "HTTP/1.1 400 "), string(all))
			w.ran(0)
			assert.Empty(t, w.stored())
		})
	}
}

// The same body, whole or in chunks, is the same request.
func TestChunkedBodyIsTheSameRequest(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	w.post("k", "abc")
	q := request{key: "k", body: "abc"}.build(t, w.server.URL)
	q.ContentLength = -1
	assert.True(t, do(t, w.server.Client(), q).replayed())
	q = request{key: "k", body: "abcd"}.build(t, w.server.URL)
	q.ContentLength = -1
	assert.Equal(t, http.StatusUnprocessableEntity, do(t, w.server.Client(), q).StatusCode)
}
