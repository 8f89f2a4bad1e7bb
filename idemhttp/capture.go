package idemhttp

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// A capture is the http.ResponseWriter of a guarded handler. It keeps everything until the handler
// has returned.
//
// It is an http.Flusher, since many handlers insist on one; what is flushed arrives with the rest,
// once the response is recorded. It is no http.Hijacker and has no deadlines to set: an
// http.ResponseController gets http.ErrNotSupported. Of 1xx responses, those that only inform are
// dropped, and 101 panics.
type capture struct {
	before http.Header // what was set when the handler began
	header http.Header // what the handler sees

	wrote    bool
	status   int
	sent     http.Header // header when the status was written
	declared int64       // Content-Length, -1 without one
	body     bytes.Buffer
}

func newCapture(before http.Header) *capture {
	c := &capture{before: before.Clone(), header: before.Clone(), declared: -1}
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
	case status < 200, c.wrote:
		return
	}
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

// room prepares for n bytes of body.
func (c *capture) room(n int) error {
	if !c.wrote {
		c.WriteHeader(http.StatusOK)
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
	if !c.wrote {
		c.WriteHeader(http.StatusOK)
	}
}

// response is what the handler, which has returned, answered.
func (c *capture) response(cfg *config) response {
	if !c.wrote {
		c.status, c.sent = http.StatusOK, c.header.Clone()
	}
	r := response{status: c.status, body: c.body.Bytes(), tooLarge: c.body.Len() > cfg.responseLimit}
	r.trailer = c.trailers()
	private := cfg.privateNames(c.sent)
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
func (c *config) privateNames(header http.Header) map[string]bool {
	connection := header["Connection"]
	if len(connection) == 0 {
		return c.private
	}
	names := maps.Clone(c.private)
	for _, line := range connection {
		for name := range strings.SplitSeq(line, ",") {
			names[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	return names
}
