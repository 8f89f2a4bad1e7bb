package idemhttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// Clients that are not ours, and HTTP/2.

// curl runs curl and returns its standard output.
func curl(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("needs curl on PATH")
	}
	out, err := exec.CommandContext(t.Context(), path, append([]string{"--silent", "--show-error", "--max-time", "60", "--noproxy", "*"}, args...)...).Output()
	if failed, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Output returns it bare
		require.NoError(t, err, "%s", failed.Stderr)
	}
	require.NoError(t, err)
	return string(out)
}

func TestCurl(t *testing.T) {
	t.Parallel()
	w := serve(t, w201)
	post := func(args ...string) string {
		return curl(t, append([]string{"--include", w.server.URL + "/payments"}, args...)...)
	}
	for _, key := range []string{"Idempotency-Key: order-42", `Idempotency-Key: "order-42"`} {
		got := post("-H", key, "--json", `{"amount":42}`)
		assert.Contains(t, got, "HTTP/1.1 201 Created")
		assert.Contains(t, got, "\r\n\r\npaid 1\n")
	}
	assert.Contains(t, post("-H", "Idempotency-Key: order-42", "--json", `{"amount":42}`), "Idempotent-Replayed: true")
	assert.Contains(t, post("-H", "Idempotency-Key: order-42", "--json", `{"amount":43}`), "HTTP/1.1 422")
	assert.Contains(t, post("-H", "Idempotency-Key;", "--json", "{}"), "HTTP/1.1 400", "curl's way to send an empty field")
	w.ran(1)

	// A form with a file, which curl sends after Expect: 100-continue when it is large.
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte(strings.Repeat("x", 1<<20-1000)), 0o600))
	got := post("-H", "Idempotency-Key: upload", "-H", "Expect: 100-continue", "--data-binary", "@"+file)
	assert.Contains(t, got, "HTTP/1.1 201 Created")
	require.NoError(t, os.WriteFile(file, []byte(strings.Repeat("x", 2<<20)), 0o600))
	got = post("-H", "Idempotency-Key: too-large", "-H", "Expect: 100-continue", "--data-binary", "@"+file)
	assert.True(t, strings.HasPrefix(got, "HTTP/1.1 413"), "without the body being sent: "+got)
	w.ran(2)
}

// curl retries by itself, with the same fields.
func TestCurlRetries(t *testing.T) {
	t.Parallel()
	w := serve(t, w201)
	proxy := cutter(t, w.server.Config.Handler, 1)
	got := curl(t, "--include", "--retry", "5", "--retry-all-errors", "-H", "Idempotency-Key: k", "-d", "x", proxy.URL)
	assert.Contains(t, got, "Idempotent-Replayed: true")
	assert.Contains(t, got, "paid 1\n")
	w.ran(1)
}

func w201(rw http.ResponseWriter, r *http.Request) {
	rw.WriteHeader(http.StatusCreated)
	fmt.Fprintln(rw, "paid", attempt(r))
}

func TestCurlHTTP2(t *testing.T) {
	t.Parallel()
	w := serve(t, w201)
	h2 := overHTTP2(t, w)
	for i := range 2 {
		got := curl(t, "--insecure", "--http2", "--include", "-H", "Idempotency-Key: k", "-d", "x", h2.URL)
		assert.Contains(t, got, "HTTP/2 201")
		assert.Equal(t, i == 1, strings.Contains(got, "idempotent-replayed: true"), got)
	}
	w.ran(1)
}

func overHTTP2(t *testing.T, w *world) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(w.server.Config.Handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	for name, handle := range handlers {
		t.Run(name, func(t *testing.T) {
			w := serve(t, handle)
			h2 := overHTTP2(t, w)
			var both []answer
			for range 2 {
				got := do(t, h2.Client(), request{key: "k", body: "x"}.build(t, h2.URL))
				require.Equal(t, 2, got.ProtoMajor)
				both = append(both, got)
			}
			w.ran(1)
			first, again := both[0], both[1]
			require.True(t, again.replayed())
			for _, a := range both {
				own(a.Header)
			}
			assert.Equal(t, first.StatusCode, again.StatusCode)
			assert.Equal(t, first.Header, again.Header)
			assert.Equal(t, first.Trailer, again.Trailer)
			assert.Equal(t, first.body, again.body)
		})
	}
}

// HTTP/2 and HTTP/1.1 share the records.
func TestHTTP2AndHTTP1(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	h2 := overHTTP2(t, w)
	first := w.post("k", "x")
	again := do(t, h2.Client(), request{key: "k", body: "x"}.build(t, h2.URL))
	assert.True(t, again.replayed())
	assert.Equal(t, first.body, again.body)
}

// A stream that is reset is a client that disconnects.
func TestHTTP2StreamReset(t *testing.T) {
	t.Parallel()
	s := newSlow()
	w := serve(t, s.handle)
	h2 := overHTTP2(t, w)
	client := h2.Client()
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-s.running
		leave()
	}()
	_, err := client.Do(request{key: "k"}.build(t, h2.URL).WithContext(ctx))
	require.Error(t, err)
	close(s.finish)
	w.events.Wait(t, idempotent.EventRecorded, 1)
	got := do(t, client, request{key: "k"}.build(t, h2.URL))
	assert.True(t, got.replayed())
	w.ran(1)
}
