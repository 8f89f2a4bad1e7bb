package idemhttp_test

import (
	"net/http"
	"testing"

	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemhttp/internal/suite"
)

// The behaviour suite in net/http, over both of its protocols.
func TestSuiteNetHTTP(t *testing.T) {
	t.Parallel()
	for name, http2 := range map[string]bool{"HTTP1": false, "HTTP2": true} {
		suite.Run(t, suite.Framework{
			Name: name,
			Mount: func(mw *idemhttp.Middleware, method, path string, handle http.HandlerFunc, opts ...idemhttp.RouteOption) http.Handler {
				mux := http.NewServeMux()
				mux.Handle(method+" "+path, mw.Wrap(handle, opts...))
				return mux
			},
			Param: func(r *http.Request) string { return r.PathValue("id") },
			HTTP2: http2,
		})
	}
}
