package webhook

import (
	"net/http"
	"time"
)

// A Scheme verifies the requests of one provider and reads their events. Ready-made schemes hold their secrets; the
// constructors refuse to make one without a secret. A Scheme is safe for concurrent use.
type Scheme interface {
	// Verify returns the content of an authentic request. It checks the signature over the raw body, in constant time,
	// before it parses anything, and takes "now" from r.ReceivedAt. Otherwise it returns a *RefusedError; any other
	// error counts as [ReasonOther]. Verify must not keep or change r.
	Verify(r *Request) (Content, error)

	// Provider describes how the provider delivers. It returns the same value each time.
	Provider() Provider
}

// A Request is an HTTP request of a provider, as it was received.
type Request struct {
	Method string
	// URL is the request's URL as the server received it. Square signs the URL that was registered there, which a
	// proxy may have changed, so [Square] takes that URL as an argument and does not read this one.
	URL        string
	Header     http.Header
	Body       []byte    // byte by byte as received; never decoded and encoded again
	ReceivedAt time.Time // the receiver's clock
}

// Content is what an authentic request holds. Without events, there is nothing to store: a URL challenge, for instance.
type Content struct {
	// Events are the events of the request, at least one unless Answer is a challenge's. Adyen sends several.
	Events []Event
	// Answer is sent once the events are stored; nil means 200 without a body.
	Answer *Answer
}

// An Event is one event of a request, as the provider's scheme reads it.
type Event struct {
	ID     string // the provider's id of the event, the same in each redelivery; never empty
	Type   string // the provider's name of it, "payment_intent.succeeded"; may be empty if the provider has none
	Object string // the id of the object that changed; empty if the scheme does not know it
	// Version orders the changes of one object, by the provider's own numbering; 0 if it has none.
	Version int64
	// OccurredAt is by the provider's clock; zero if the event does not say. Events are not ordered by it.
	OccurredAt time.Time
	// Body is the event's part of the request's body, usually all of it. It may share memory with Request.Body.
	Body []byte
	// Unsigned reports that the provider did not sign the event: any client may have sent it. No handler may see it
	// until a Confirm has asked the provider.
	Unsigned bool
}

// An Answer is the HTTP response to an authentic request.
type Answer struct {
	Status      int // 0 means 200
	ContentType string
	Body        []byte
}

// Provider describes how a provider delivers. The zero value is a provider of which nothing is known.
type Provider struct {
	// Name is the provider's name in lower case, "stripe".
	Name string
	// NeverRedelivers reports that the provider gives up after one attempt: a 503 loses the event. An overloaded
	// receiver refuses requests of such a provider last.
	NeverRedelivers bool
	// AnswerWithin is how long the provider waits for a response; 0 if it does not say.
	AnswerWithin time.Duration
	// RetriesFor is how long after the first attempt the provider may deliver an event again by itself; 0 if it does
	// not say. A receiver must remember event ids for longer.
	RetriesFor time.Duration
	// MaxBody is the largest body the provider sends, in bytes; 0 if it does not say.
	MaxBody int64
	// SendsUnsigned reports that some of its events are not signed, so that the source needs a Confirm.
	SendsUnsigned bool
}
