package idemhttp

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

const typeBase = "https://github.com/idempotent-go/idempotent/blob/main/docs/http.md#"

// Types of problems. They are stable.
const (
	// TypeKeyMissing: 400, the request needs an Idempotency-Key and has none.
	TypeKeyMissing = typeBase + "key-missing"
	// TypeKeyInvalid: 400, the Idempotency-Key is not one.
	TypeKeyInvalid = typeBase + "key-invalid"
	// TypeBodyUnreadable: 400 or, when it took too long, 408: the request body did not arrive.
	TypeBodyUnreadable = typeBase + "body-unreadable"
	// TypeRequestTooLarge: 413.
	TypeRequestTooLarge = typeBase + "request-too-large"
	// TypeKeyReused: 422, the key belongs to another request.
	TypeKeyReused = typeBase + "key-reused"
	// TypeInProgress: 409, a request with this key is still running.
	TypeInProgress = typeBase + "in-progress"
	// TypeSuperseded: 409, this execution lost its lease, and another one has the say.
	TypeSuperseded = typeBase + "superseded"
	// TypeInterrupted: 500, an earlier execution broke off, and is not repeated.
	TypeInterrupted = typeBase + "interrupted"
	// TypePanicked: 500, the handler panicked on the first request.
	TypePanicked = typeBase + "panicked"
	// TypeResponseTooLarge: 500, the request was carried out, and its response not kept.
	TypeResponseTooLarge = typeBase + "response-too-large"
	// TypeRecordUnreadable: 500, what is recorded under the key cannot be read.
	TypeRecordUnreadable = typeBase + "record-unreadable"
	// TypeMisconfigured: 500, the server cannot tell whose key it is, or what was asked for.
	TypeMisconfigured = typeBase + "misconfigured"
	// TypeUnavailable: 503, Redis could not be asked, or the server shuts down; the handler was
	// not run.
	TypeUnavailable = typeBase + "unavailable"
)

// A Problem is an answer of the middleware itself, as RFC 9457 describes it. It is an error too,
// for a scope to return: WithScope.
type Problem struct {
	Type   string `json:"type,omitempty"`
	Title  string `json:"title,omitempty"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`

	// RetryAfter is for the Retry-After field: rounded up to seconds, absent if 0.
	RetryAfter time.Duration `json:"-"`
}

func (p *Problem) Error() string { return "idemhttp: " + p.Title + ": " + p.Detail }

// refuse answers a request with a problem.
func (c *config) refuse(w http.ResponseWriter, r *http.Request, p *Problem) {
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(seconds(p.RetryAfter), 10))
	}
	if c.documented {
		w.Header().Add("Link", "<"+c.documentation+`>; rel="describedby"; type="text/html"`)
	}
	c.render(w, r, p)
}

// seconds rounds up, to 1 at least.
func seconds(d time.Duration) int64 { return max(1, int64((d+time.Second-1)/time.Second)) }

// renderProblem is the default of WithProblemRenderer.
func renderProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	mediaType := negotiate(r.Header.Values("Accept"), "application/problem+json", "application/json", "text/plain")
	var body []byte
	if mediaType == "text/plain" {
		body = []byte(p.Title + "\n\n" + p.Detail + "\n\n" + p.Type + "\n")
		mediaType += "; charset=utf-8"
	} else {
		body, _ = json.Marshal(p) // texts and a number
		body = append(body, '\n')
	}
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Language", "en")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Add("Vary", "Accept")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}
