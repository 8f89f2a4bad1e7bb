package idemhttp

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
)

// A response is what a handler answered, as far as a replay needs it.
type response struct {
	status  int
	header  http.Header // what the handler set, not what was there before
	deleted []string    // what was there before and the handler removed
	trailer http.Header // under the names that net/http wants: with or without http.TrailerPrefix
	body    []byte

	// tooLarge: the body is over the limit, and a record of it says no more than that, and the
	// status.
	tooLarge bool

	private http.Header // for the caller that ran the handler alone; not encoded
	decoded bool        // it went through a record
}

// ReplayedHeader marks the replay of a recorded response, which is final: the same request will
// not be answered otherwise until the record expires.
const ReplayedHeader = "Idempotent-Replayed"

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

// unrecordedError carries a response that is not recorded out of the executor: to the caller that
// ran the handler and, by way of JSON, to those who wait for it.
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

// interruptedError is the response of a handler that broke off because its context had ended, or
// that does not know what it did.
type interruptedError struct {
	response response
	cause    error
}

func (e *interruptedError) Error() string { return "idemhttp: handler broke off: " + e.cause.Error() }
func (e *interruptedError) Unwrap() error { return e.cause }

var errUnknown = errors.New("its outcome is not known")
