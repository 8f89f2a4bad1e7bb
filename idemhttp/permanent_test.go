package idemhttp_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/idemhttp"
)

// A counter counts round trips.
type counter struct {
	http.RoundTripper
	n atomic.Int32
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.RoundTripper.RoundTrip(r)
}

// says is a server that answers each connection with a text.
func says(t *testing.T, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, text)
			}()
		}
	}()
	return l.Addr().String()
}

// What cannot pass is tried once. The errors are those of net/http itself.
func TestTransportTriesOnceWhatCannotPass(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.HandlerFunc(created))
	defer plain.Close()
	secure := httptest.NewUnstartedServer(http.HandlerFunc(created))
	secure.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	secure.Config.ErrorLog = quiet
	secure.StartTLS()
	defer secure.Close()
	trusting := &http.Transport{TLSClientConfig: secure.Client().Transport.(*http.Transport).TLSClientConfig.Clone()}
	old := trusting.Clone()
	old.TLSClientConfig.MaxVersion = tls.VersionTLS12

	good := func() *http.Request { return newRequest(t, http.MethodPost, strings.NewReader("x")) }
	at := func(address string) *http.Request {
		r := good()
		u, err := url.Parse(address)
		require.NoError(t, err)
		r.URL, r.Host = u, u.Host
		return r
	}
	with := func(change func(*http.Request)) *http.Request {
		r := at(plain.URL)
		change(r)
		return r
	}
	for name, test := range map[string]struct {
		r    *http.Request
		base http.RoundTripper
	}{
		"bad scheme":                  {at("htp://example.com/"), nil},
		"no scheme":                   {with(func(r *http.Request) { r.URL.Scheme = "" }), nil},
		"no host":                     {at("http:///path"), nil},
		"no URL":                      {with(func(r *http.Request) { r.URL = nil }), nil},
		"bad header name":             {with(func(r *http.Request) { r.Header["X Y"] = []string{"1"} }), nil},
		"bad header value":            {with(func(r *http.Request) { r.Header.Set("X", "a\nb") }), nil},
		"bad method":                  {with(func(r *http.Request) { r.Method = "PO ST"; r.Header.Set(idemhttp.KeyHeader, "k") }), nil},
		"bad port":                    {at("http://127.0.0.1:99999/"), nil},
		"HTTPS to an HTTP server":     {at(strings.Replace(plain.URL, "http:", "https:", 1)), nil},
		"HTTPS to another protocol":   {at("https://" + says(t, "220 mail.example.com ESMTP\r\n")), nil},
		"HTTP to another protocol":    {at("http://" + says(t, "220 mail.example.com ESMTP\r\n")), nil},
		"unknown authority":           {at(secure.URL), nil},
		"certificate of another name": {at(strings.Replace(secure.URL, "127.0.0.1", "localhost", 1)), trusting},
		"client certificate missing":  {at(secure.URL), trusting},
		"no common version of TLS":    {at(secure.URL), old},
		"body of another length":      {with(func(r *http.Request) { r.ContentLength = 5 }), nil},
	} {
		t.Run(name, func(t *testing.T) {
			base := &counter{RoundTripper: test.base}
			if test.base == nil {
				base.RoundTripper = &http.Transport{}
			}
			rt, err := idemhttp.NewTransport(base, idemhttp.WithBackoff(time.Millisecond, time.Millisecond))
			require.NoError(t, err)
			res, err := rt.RoundTrip(test.r)
			if err == nil {
				_ = res.Body.Close()
			}
			require.Error(t, err)
			assert.EqualValues(t, 1, base.n.Load(), "%v", err)
		})
	}
}

// What can pass is tried again, whatever is inside.
func TestTransportRepeatsWhatCanPass(t *testing.T) {
	for _, err := range []error{
		errReset, io.EOF, io.ErrUnexpectedEOF, &net.OpError{Op: "dial", Net: "tcp", Err: errReset},
		&net.DNSError{Err: "server misbehaving", IsTemporary: true}, errors.New("http: server closed idle connection"),
	} {
		scripted(t, []any{err, 200}, nil, func(t *testing.T, rt *idemhttp.Transport, s *script) {
			_, failed := rt.RoundTrip(newRequest(t, http.MethodPost, nil))
			require.NoError(t, failed)
			assert.Len(t, s.at, 2, err)
		})
	}
}
