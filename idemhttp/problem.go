package idemhttp

import (
	"encoding/json"
	"errors"
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
	// TypeNotHTTP: 415, the request is a gRPC call, whose failures an HTTP middleware cannot see.
	TypeNotHTTP = typeBase + "not-http"
	// TypeMisconfigured: 500, the server cannot tell whose key it is, or what was asked for.
	TypeMisconfigured = typeBase + "misconfigured"
	// TypeUnavailable: 503, Redis could not be asked, or the server shuts down; the handler was
	// not run.
	TypeUnavailable = typeBase + "unavailable"
)

// A Problem is an answer of the middleware itself, as RFC 9457 describes it. It is an error too, for
// a Scope, a KeyFunc or the function of FingerprintFunc to return.
type Problem struct {
	Type   string `json:"type,omitempty"`
	Title  string `json:"title,omitempty"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Instance is the operation in question, for Middleware.Peek, Forget and Resolve; empty where
	// there is none. RFC 9457 has a URI reference here, and 64 hexadecimal digits are one.
	Instance string `json:"instance,omitempty"`

	// RetryAfter is for the Retry-After field: rounded up to seconds, absent if 0.
	RetryAfter time.Duration `json:"-"`
}

func (p *Problem) Error() string { return "idemhttp: " + p.Title + ": " + p.Detail }

// problemIn returns the problem that err is or wraps, otherwise the given one. Without a status that
// can be sent, it is not one.
func problemIn(err error, otherwise *Problem) *Problem {
	p, ok := errors.AsType[*Problem](err)
	if !ok || p == nil || p.Status < 200 || p.Status > 999 {
		return otherwise
	}
	return p
}

// refuse answers a request with a problem. instance is the operation in question, if there is one.
func (g *guard) refuse(w http.ResponseWriter, r *http.Request, instance string, p *Problem) {
	if instance != "" {
		named := *p
		named.Instance = instance
		p = &named
	}
	if p.Status >= http.StatusInternalServerError {
		g.logger.WarnContext(r.Context(), "idemhttp: request refused", "instance", instance, "status", p.Status, "type", p.Type)
	}
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(seconds(p.RetryAfter), 10))
	}
	if g.documented {
		w.Header().Add("Link", "<"+g.documentation+`>; rel="describedby"; type="text/html"`)
	}
	g.render(w, r, p)
}

// seconds rounds up, to 1 at least.
func seconds(d time.Duration) int64 { return max(1, int64((d+time.Second-1)/time.Second)) }

// renderProblem is the default of WithProblemRenderer.
func renderProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	mediaType := negotiate(r.Header.Values("Accept"), "application/problem+json", "application/json", "text/plain")
	var body []byte
	if mediaType == "text/plain" {
		body = []byte(p.Title + "\n\n" + p.Detail + "\n\n" + p.Type + "\n")
		if p.Instance != "" {
			body = append(body, p.Instance+"\n"...)
		}
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
