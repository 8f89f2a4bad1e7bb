package idemhttp

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A response is what a handler answered, as far as a replay needs it.
type response struct {
	status  int
	header  http.Header // what the handler set, not what was there before
	deleted []string    // what was there before and the handler removed
	trailer http.Header // under the names that net/http wants: with or without http.TrailerPrefix
	body    []byte
	expires int64 // Unix time in seconds when the record ends, 0 if there is none

	// withheld: the response is over the limit or could not be redacted. A record of it has the
	// status and nothing else.
	withheld bool
	// redacted: WithRedact has changed it.
	redacted bool

	private http.Header // for the caller that ran the handler alone; not encoded
	stored  *response   // what is encoded instead, if it is not the response itself
	decoded bool        // it went through a record
}

// Header fields that the middleware sets.
const (
	// ReplayedHeader is "true" on the replay of a recorded response, which is final: the same request
	// will not be answered otherwise until the record expires. It is "false" on the first answer,
	// with the key in KeyHeader, and says that the key was honoured; see WithPlainFirstAnswer.
	ReplayedHeader = "Idempotent-Replayed"
	// ExpiresHeader is until when a replayed response is kept, as an HTTP date.
	ExpiresHeader = "Idempotent-Expires"
	// RedactedHeader is "true" on a replay that WithRedact has changed.
	RedactedHeader = "Idempotent-Redacted"
	// UnguardedHeader is "true" on a response that WithFailOpen let through: nothing kept its handler
	// from running more than once, and it is not recorded.
	UnguardedHeader = "Idempotent-Unguarded"
	// UnrecordedHeader is "true" on a response that is not recorded although its handler ran and may
	// have had its effect: the commit failed or takes long, or the ending is Unknown. The next request
	// with its key may run the handler again, as the next attempt.
	UnrecordedHeader = "Idempotent-Unrecorded"
)

// size is how large the response is for WithResponseLimit: the body and all fields.
func (r *response) size() int {
	n := len(r.body)
	for _, fields := range []http.Header{r.header, r.trailer} {
		for name, values := range fields {
			for _, value := range values {
				n += len(name) + len(value) + len(": \r\n")
			}
		}
	}
	return n
}

// write sends the response.
func (r *response) write(w http.ResponseWriter) {
	h := w.Header()
	for _, name := range r.deleted {
		delete(h, name)
	}
	maps.Copy(h, r.header)
	maps.Copy(h, r.private)
	if _, set := h["Content-Length"]; !set && bodyAllowed(r.status) && len(r.trailer) == 0 {
		h.Set("Content-Length", strconv.Itoa(len(r.body)))
	}
	for name, values := range r.trailer {
		if strings.HasPrefix(name, http.TrailerPrefix) { // net/http must see it before the body
			h[name] = values
		}
	}
	w.WriteHeader(r.status)
	if len(r.body) > 0 {
		_, _ = w.Write(r.body) // the client may be gone
	}
	maps.Copy(h, r.trailer)
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// keep decides what is encoded of a response: all of it, what WithRedact leaves, or the status alone.
func (g *guard) keep(r *response) {
	r.expires = time.Now().Add(g.ttl).Unix()
	kept := *r
	kept.private = nil
	withheld := false
	if g.redact != nil {
		withheld = !g.redacted(&kept)
	}
	if withheld || kept.size() > g.responseLimit {
		r.stored = &response{status: r.status, expires: r.expires, withheld: true}
		return
	}
	if kept.redacted {
		r.stored = &kept
	}
}

// unrecordedError carries the response of a Free ending out of the executor: to the caller that ran
// the handler and, as JSON, to those that wait for it.
type unrecordedError struct{ response response }

func (e *unrecordedError) Error() string {
	return "idemhttp: response " + strconv.Itoa(e.response.status) + " is not recorded"
}

// MarshalJSON and UnmarshalJSON are for idempotent.ErrorType.

func (e *unrecordedError) MarshalJSON() ([]byte, error) { return json.Marshal(e.response.encode()) }

func (e *unrecordedError) UnmarshalJSON(data []byte) error {
	var encoded []byte
	if err := json.Unmarshal(data, &encoded); err != nil {
		return err
	}
	var err error
	e.response, err = decodeResponse(encoded)
	return err
}

// errUnknown is the error of an Unknown ending, marked with idempotent.OutcomeUnknown. Its response
// is in the progress.
var errUnknown = errors.New("idemhttp: the outcome of the handler is not known")
