package idemhttp

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/idempotent-go/idempotent"
)

// A Policy is what a server must publish about its Idempotency-Key: as JSON, or as a page of its
// documentation. It is an http.Handler that serves itself. It has the options of New; where those of
// Wrap differ, say so in the documentation.
type Policy struct {
	// Header is the name of the field, empty if the key comes from elsewhere (WithKey).
	Header string `json:"header,omitempty"`
	// Methods are those whose requests are guarded, and Required says whether they need a key.
	Methods  []string `json:"methods"`
	Required bool     `json:"required"`
	// Key describes a key.
	Key KeyPolicy `json:"key"`
	// ExpirySeconds is how long after its completion a request is remembered. After that, a
	// request with its key is a new one.
	ExpirySeconds int64 `json:"expirySeconds"`
	// Fingerprint lists what must be the same under the same key.
	Fingerprint []string `json:"fingerprint"`
	// Concurrent is what happens to a request whose key is in use: "wait" or "conflict".
	Concurrent string `json:"concurrent"`
	// WaitSeconds is how long it waits before it gets 409.
	WaitSeconds float64 `json:"waitSeconds,omitempty"`
	// Interrupted is what happens to a request whose first execution ended without a response: "rerun" or
	// "refuse".
	Interrupted string `json:"interrupted"`
	// RequestLimitBytes is the longest request body.
	RequestLimitBytes int64 `json:"requestLimitBytes"`
	// ResponseLimitBytes is the longest response body that can be had again.
	ResponseLimitBytes int `json:"responseLimitBytes"`
	// Documentation is where to read more.
	Documentation string `json:"documentation,omitempty"`
}

// A KeyPolicy describes keys.
type KeyPolicy struct {
	Format    string `json:"format"`
	MaxLength int    `json:"maxLength"`
	// Strict keys must be structured-field Strings; others may come without quotes.
	Strict bool `json:"strict"`
}

// Policy returns the rules of the middleware.
func (m *Middleware) Policy() Policy {
	p := Policy{
		Header:             KeyHeader,
		Methods:            slices.Clone(m.methods),
		Required:           m.required,
		Key:                KeyPolicy{Format: m.keyDescription, MaxLength: m.keyLimit, Strict: m.strict},
		ExpirySeconds:      int64(m.ttl / time.Second),
		Fingerprint:        slices.Clone(m.fingerprint.names),
		Concurrent:         "conflict",
		Interrupted:        "rerun",
		RequestLimitBytes:  m.requestLimit,
		ResponseLimitBytes: m.responseLimit,
		Documentation:      m.documentation,
	}
	if m.keyFunc != nil {
		p.Header = ""
	}
	if p.Key.Format == "" {
		p.Key.Format = fmt.Sprintf("1 to %d printable ASCII characters, unique to the request; a random UUID is best", m.keyLimit)
	}
	if !m.noWait {
		p.Concurrent, p.WaitSeconds = "wait", m.waitTimeout.Seconds()
	}
	if m.interrupted == idempotent.Refuse {
		p.Interrupted = "refuse"
	}
	return p
}

// ServeHTTP answers with the policy as JSON.
func (p Policy) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	body, _ := json.MarshalIndent(p, "", "  ") // texts and numbers
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n'))
}
