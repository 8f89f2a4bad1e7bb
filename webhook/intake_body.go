package webhook

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// readBody reads the body of a request. release, which must be called, gives its bytes back to the budget.
func (in *Inbox) readBody(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, release func(), err error) {
	m := &meteredReader{from: http.MaxBytesReader(w, r.Body, limit), held: &in.held, limit: in.cfg.bodyMemory}
	// A server without deadlines (a test recorder) reads without one.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(in.cfg.readTimeout))
	body, err = io.ReadAll(m)
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	if err == nil {
		return body, m.release, nil
	}
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	switch {
	case tooLarge:
		return nil, m.release, reject(http.StatusRequestEntityTooLarge, Refuse(ReasonBadBody, "the body is larger than Source.MaxBody"))
	case errors.Is(err, errBodyMemory):
		return nil, m.release, unavailable(retrySoon, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, m.release, reject(http.StatusRequestTimeout, Refuse(ReasonBadBody, "the body did not arrive within WithReadTimeout"))
	}
	return nil, m.release, reject(http.StatusBadRequest, Refuse(ReasonBadBody, "the body could not be read"))
}

// A meteredReader counts the bytes it read against a budget that all requests share.
type meteredReader struct {
	from  io.Reader
	held  *atomic.Int64
	limit int64
	read  int64
}

func (m *meteredReader) Read(b []byte) (int, error) {
	n, err := m.from.Read(b)
	m.read += int64(n)
	if m.held.Add(int64(n)) > m.limit {
		return n, errBodyMemory
	}
	return n, err
}

func (m *meteredReader) release() { m.held.Add(-m.read) }

// storeErrorText is the text of a store's error, without the arguments of a command that Redis did not know: they may
// hold a payload.
func storeErrorText(err error) string {
	text, _, _ := strings.Cut(err.Error(), ", with args beginning with")
	return text
}

// A storeError is an error of a store whose text may be shown.
type storeError struct{ cause error }

func (e *storeError) Error() string { return storeErrorText(e.cause) }
func (e *storeError) Unwrap() error { return e.cause }
