// Package idemgin is the middleware of idemhttp for gin.
//
//	r.POST("/payments", authenticate, idemgin.New(mw), createPayment)
//	api := r.Group("/v1", authenticate, idemgin.New(mw, idemhttp.WithRequiredKey()))
//
// It goes behind the authentication, and in front of everything that belongs to the answer: the
// handler, what binds its input and what renders its errors. idempotent.RunInfoFromContext,
// idemhttp.OutcomeUnknown and idemhttp.NoEffect take the gin.Context itself.
package idemgin

import (
	"bufio"
	"errors"
	"net"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemhttp/internal/adapter"
	"github.com/idempotent-go/idempotent/internal/runctx"
)

// New returns the middleware as gin wants it, for a route or a group. The route in a key's scope is gin's
// FullPath. opts replace those of mw; New panics where mw.Wrap does.
//
// A handler that leaves errors in the context (gin.Context.Error) and writes nothing has an unknown
// outcome: what renders them must be behind this middleware, or else it does so after the response was
// recorded.
func New(mw *idemhttp.Middleware, opts ...idemhttp.RouteOption) gin.HandlerFunc {
	route := idemhttp.WithRoute(func(r *http.Request) string { return adapter.From[*call](r.Context()).FullPath() })
	guarded := mw.Wrap(http.HandlerFunc(serve), append([]idemhttp.RouteOption{route}, opts...)...)
	return func(c *gin.Context) {
		writer, request := c.Writer, c.Request
		ran := false
		defer func() {
			c.Writer, c.Request = writer, request
			if !ran {
				c.Abort()
			}
		}()
		guarded.ServeHTTP(writer, request.WithContext(adapter.With(request.Context(), &call{Context: c, ran: &ran})))
	}
}

// A call is one request on its way through the middleware.
type call struct {
	*gin.Context
	ran *bool
}

// serve runs what comes behind the middleware.
func serve(w http.ResponseWriter, r *http.Request) {
	in := adapter.From[*call](r.Context())
	c := in.Context
	*in.ran = true
	c.Request = r
	if gins, plain := w.(gin.ResponseWriter); plain && gins == c.Writer { // without a key
		c.Next()
		return
	}
	out := &writer{ResponseWriter: w, size: unwritten, status: http.StatusOK}
	c.Writer = out
	c.Set(runctx.Key, r.Context())
	defer delete(c.Keys, runctx.Key)
	c.Next()
	if len(c.Errors) > 0 && !out.Written() && out.status < http.StatusBadRequest {
		idemhttp.OutcomeUnknown(r.Context())
	}
	out.WriteHeaderNow()
}

const unwritten = -1

// A writer is a gin.ResponseWriter on the one that records. Its rules are those of gin's own: a status
// counts once the first byte is written.
type writer struct {
	http.ResponseWriter
	status int
	size   int // of the body, unwritten before the status is
}

var _ gin.ResponseWriter = (*writer)(nil)

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader sets the status, until it is written.
func (w *writer) WriteHeader(status int) {
	if status > 0 && !w.Written() {
		w.status = status
	} else if status > 0 && status != w.status {
		w.ResponseWriter.WriteHeader(status) // it logs what is superfluous
	}
}

// WriteHeaderNow writes the status.
func (w *writer) WriteHeaderNow() {
	if !w.Written() {
		w.size = 0
		w.ResponseWriter.WriteHeader(w.status)
	}
}

func (w *writer) Write(b []byte) (int, error) {
	w.WriteHeaderNow()
	n, err := w.ResponseWriter.Write(b)
	w.size += n
	return n, err
}

func (w *writer) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

func (w *writer) Status() int   { return w.status }
func (w *writer) Size() int     { return w.size }
func (w *writer) Written() bool { return w.size != unwritten }

// Flush ends the header; what is flushed arrives with the rest.
func (w *writer) Flush() {
	w.WriteHeaderNow()
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Hijack fails: a response under a key is recorded, and a connection cannot be.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.Join(errors.New("idemgin: a handler guarded by an Idempotency-Key cannot hijack its connection"), http.ErrNotSupported)
}

// CloseNotify receives when the context of the handler ends.
func (w *writer) CloseNotify() <-chan bool {
	if n, ok := w.ResponseWriter.(http.CloseNotifier); ok { //nolint:staticcheck // gin asks for it
		return n.CloseNotify()
	}
	return make(chan bool)
}

// Pusher is nil: HTTP/2 push does not go through a record.
func (w *writer) Pusher() http.Pusher { return nil }
