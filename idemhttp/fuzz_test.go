package idemhttp_test

import (
	"bufio"
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemtest"
)

// FuzzRequest sends whatever it is, twice, over a connection: a field value, and what follows the
// fields. The server answers, runs a guarded handler with a whole body only, and once only.
func FuzzRequest(f *testing.F) {
	f.Add(`k`, []byte("Content-Length: 3\r\n\r\nabc"))
	f.Add(`"k"`, []byte("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
	f.Add(`"k`, []byte("Content-Length: 10\r\n\r\nabc"))
	f.Add("k\r\nIdempotency-Key: l", []byte("\r\n"))
	f.Add("k\r\nContent-Length: 2", []byte("Content-Length: 3\r\n\r\nabc"))
	f.Add("", []byte("Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc"))
	f.Add("k", []byte("Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n1\r\na\r\n0\r\nX: 1\r\n\r\n"))
	f.Add("k", []byte("Expect: 100-continue\r\nContent-Length: 1\r\n\r\na"))
	f.Fuzz(func(t *testing.T, key string, rest []byte) {
		mw := middleware(t, idemtest.NewRedis(t), idemhttp.WithRequestLimit(100))
		server := httptest.NewUnstartedServer(mw.Wrap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			_, guarded := idempotent.RunInfoFromContext(r.Context())
			if guarded {
				assert.NoError(t, err)
				assert.Equal(t, r.ContentLength, int64(len(body)))
				assert.LessOrEqual(t, len(body), 100)
				rw.Header().Set("X-Guarded", "1")
			}
			rw.WriteHeader(http.StatusCreated)
		})))
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.Start()
		defer server.Close()
		request := bytes.Join([][]byte{[]byte("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIdempotency-Key: "), []byte(key), []byte("\r\n"), rest}, nil)
		first, again := exchange(t, server, request), exchange(t, server, request)
		if first == nil || first.StatusCode != http.StatusCreated || first.Header.Get("X-Guarded") == "" {
			return
		}
		require.NotNil(t, again)
		if again.StatusCode == http.StatusConflict { // it has closed its side: net/http may take it for gone
			return
		}
		assert.Equal(t, http.StatusCreated, again.StatusCode)
		assert.Equal(t, "true", again.Header.Get(idemhttp.ReplayedHeader))
	})
}

// exchange returns the final response to what is sent, nil if there is none.
func exchange(t *testing.T, server *httptest.Server, request []byte) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, _ = conn.Write(request) // the server may answer and close before it has read all
	_ = conn.(*net.TCPConn).CloseWrite()
	for in := bufio.NewReader(conn); ; {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return nil
		}
		_, _ = io.Copy(io.Discard, res.Body)
		if res.StatusCode >= 200 {
			return res
		}
	}
}
