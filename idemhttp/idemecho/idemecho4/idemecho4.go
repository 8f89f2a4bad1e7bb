// Package idemecho4 is the middleware of idemhttp for echo v4. Package idemecho is the one for v5.
//
//	e.POST("/payments", createPayment, authenticate, idemecho4.New(mw))
//	api := e.Group("/v1", authenticate, idemecho4.New(mw, idemhttp.WithRequiredKey()))
//
// It goes behind the authentication. An error that a handler returns is rendered inside, by echo's
// HTTPErrorHandler, so that what is recorded is what the client gets. Do not use echo.WrapMiddleware
// for a Middleware: requests with a key that come through it are answered with 500.
package idemecho4

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemhttp/internal/adapter"
)

// New returns the middleware as echo wants it, for a route or a group. The route in a key's scope is
// echo's Path. opts replace those of mw; New panics where mw.Wrap does.
func New(mw *idemhttp.Middleware, opts ...idemhttp.RouteOption) echo.MiddlewareFunc {
	route := idemhttp.WithRoute(func(r *http.Request) string { return adapter.From[*call](r.Context()).Path() })
	guarded := mw.Wrap(http.HandlerFunc(serve), append([]idemhttp.RouteOption{route}, opts...)...)
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			in := &call{Context: c, next: next, outer: c.Response()}
			request := c.Request()
			defer func() {
				c.SetResponse(in.outer)
				c.SetRequest(request)
			}()
			guarded.ServeHTTP(in.outer, request.WithContext(adapter.With(request.Context(), in)))
			return in.err
		}
	}
}

// A call is one request on its way through the middleware.
type call struct {
	echo.Context
	next  echo.HandlerFunc
	outer *echo.Response
	err   error // of a handler without a key: echo renders it
}

// serve runs what comes behind the middleware.
func serve(w http.ResponseWriter, r *http.Request) {
	in := adapter.From[*call](r.Context())
	c := in.Context
	c.SetRequest(r)
	if outer, plain := w.(*echo.Response); plain && outer == in.outer { // without a key
		in.err = in.next(c)
		return
	}
	c.SetResponse(echo.NewResponse(w, c.Echo()))
	if err := in.next(c); err != nil {
		c.Error(err)
	}
}
