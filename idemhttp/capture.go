package idemhttp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// A capture is the http.ResponseWriter of a guarded handler. It keeps everything until the handler
// has returned.
//
// It is an http.Flusher, since many handlers insist on one; what is flushed arrives with the rest,
// once the response is recorded. It is an http.CloseNotifier for frameworks that use it without
// asking, as gin's Stream does. It is no http.Hijacker and has no deadlines to set: an
// http.ResponseController gets http.ErrNotSupported. Of 1xx responses, those that only inform are
// dropped, and 101 panics.
type capture struct {
	guard  *guard
	ctx    context.Context // the handler's
	name   string          // instance, for the log
	before http.Header     // what was set when the handler began
	header http.Header     // what the handler sees

	wrote    bool
	flushed  bool
	status   int
	sent     http.Header // header when the status was written
	declared int64       // Content-Length, -1 without one
	body     bytes.Buffer
}

func newCapture(g *guard, ctx context.Context, name string, before http.Header) *capture {
	c := &capture{guard: g, ctx: ctx, name: name, before: before.Clone(), header: before.Clone(), declared: -1}
	if c.header == nil {
		c.header = make(http.Header)
	}
	return c
}

// Header implements http.ResponseWriter.
func (c *capture) Header() http.Header { return c.header }

// WriteHeader implements http.ResponseWriter.
func (c *capture) WriteHeader(status int) {
	switch {
	case status < 100 || status > 999: // as net/http does
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	case status == http.StatusSwitchingProtocols:
		panic("idemhttp: a handler guarded by an Idempotency-Key cannot switch protocols")
	case c.wrote:
		c.logSuperfluous(status)
		return
	case status < 200:
		return
	}
	c.writeStatus(status)
}

func (c *capture) writeStatus(status int) {
	c.wrote, c.status, c.sent = true, status, c.header.Clone()
	if length := c.sent.Get("Content-Length"); length != "" {
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil || n < 0 { // net/http drops it, too
			c.sent.Del("Content-Length")
			return
		}
		c.declared = n
	}
}

// logSuperfluous logs what net/http logs: a second status, which is ignored.
func (c *capture) logSuperfluous(status int) {
	_, file, line, _ := runtime.Caller(2)
	c.guard.logger.WarnContext(c.ctx, "idemhttp: superfluous WriteHeader", "instance", c.name,
		"status", c.status, "ignored", status, "caller", fmt.Sprintf("%s:%d", file, line))
}

// CloseNotify implements http.CloseNotifier: the channel receives when the context of the handler ends.
func (c *capture) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(c.ctx, func() { gone <- true })
	return gone
}

// room prepares for n bytes of body.
func (c *capture) room(n int) error {
	if !c.wrote {
		c.writeStatus(http.StatusOK)
	}
	switch {
	case n == 0:
		return nil
	case !bodyAllowed(c.status):
		return http.ErrBodyNotAllowed
	case c.declared >= 0 && int64(c.body.Len()+n) > c.declared:
		return http.ErrContentLength
	}
	return nil
}

// Write implements http.ResponseWriter.
func (c *capture) Write(b []byte) (int, error) {
	if err := c.room(len(b)); err != nil {
		return 0, err
	}
	return c.body.Write(b)
}

// WriteString implements io.StringWriter.
func (c *capture) WriteString(s string) (int, error) {
	if err := c.room(len(s)); err != nil {
		return 0, err
	}
	return c.body.WriteString(s)
}

// ReadFrom implements io.ReaderFrom. Unlike bytes.Buffer's, it returns what Write says of each
// piece, and does not panic.
func (c *capture) ReadFrom(src io.Reader) (int64, error) {
	type onlyWriter struct{ io.Writer }
	return io.Copy(onlyWriter{c}, src)
}

// Flush implements http.Flusher: as in net/http, it ends the header.
func (c *capture) Flush() {
	c.flushed = true
	if !c.wrote {
		c.writeStatus(http.StatusOK)
	}
}

// response is the response of the handler, which has returned.
func (c *capture) response() response {
	if !c.wrote {
		c.writeStatus(http.StatusOK)
		c.wrote = false
	}
	r := response{status: c.status, body: c.body.Bytes()}
	r.trailer = c.trailers()
	private := privateNames(c.guard.private, c.sent)
	for name, values := range c.sent {
		before, was := c.before[name]
		switch {
		case strings.HasPrefix(name, http.TrailerPrefix), name == "Transfer-Encoding": // net/http frames the body
		case was && slices.Equal(before, values):
		case private[name]:
			r.private = set(r.private, name, values)
		default:
			r.header = set(r.header, name, values)
		}
	}
	for name := range c.before {
		if _, still := c.sent[name]; !still {
			r.deleted = append(r.deleted, name)
		}
	}
	slices.Sort(r.deleted)
	return r
}

// short reports whether the body is shorter than its Content-Length, which a client takes for a broken
// connection.
func (c *capture) short(method string) bool {
	return c.declared > int64(c.body.Len()) && bodyAllowed(c.status) && method != http.MethodHead
}

// trailers are the fields that the handler set for after the body: those that it announced in
// Trailer, and those with http.TrailerPrefix.
func (c *capture) trailers() (trailers http.Header) {
	for _, line := range c.sent["Trailer"] {
		for name := range strings.SplitSeq(line, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if values, ok := c.header[name]; ok {
				trailers = set(trailers, name, slices.Clone(values))
			}
		}
	}
	for name, values := range c.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			trailers = set(trailers, name, slices.Clone(values))
		}
	}
	return trailers
}

func set(h http.Header, name string, values []string) http.Header {
	if h == nil {
		h = make(http.Header)
	}
	h[name] = values
	return h
}

// hopByHop are the fields that concern one connection, RFC 9110 section 7.6.1; those that
// Connection names are too.
var hopByHop = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Transfer-Encoding", "Upgrade"}

// privateNames are the fields that are for the caller that ran the handler, and not recorded.
func privateNames(private map[string]bool, header http.Header) map[string]bool {
	connection := header["Connection"]
	if len(connection) == 0 {
		return private
	}
	names := maps.Clone(private)
	for _, line := range connection {
		for name := range strings.SplitSeq(line, ",") {
			names[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	return names
}
