package idemhttp

import (
	"net/http"
	"slices"
)

// A Verdict says what the ending of a handler means for its key.
type Verdict uint8

const (
	// Record stores the response: every later request with the key gets it, until the TTL ends.
	Record Verdict = iota + 1
	// Free releases the key: the next request with it runs the handler, at attempt 1 if this was the
	// first. It is right
	// only if the handler surely had no effect. Requests that wait get the response too.
	Free
	// Unknown stores no response and keeps the attempt number: the next request runs the handler as
	// the next attempt, or is refused, as WithInterrupted says.
	Unknown
)

func (v Verdict) String() string {
	switch v {
	case Record:
		return "record"
	case Free:
		return "free"
	case Unknown:
		return "unknown"
	}
	return "invalid"
}

// An Ending is how a handler ended, with a response that is whole. WithShouldRecord gets it.
type Ending struct {
	// Status and Header are the response's. A function must not change Header.
	Status int
	Header http.Header
	// Attempt is the number of the execution, 1 for the first.
	Attempt int
	// Flushed: the handler flushed its response before it returned.
	Flushed bool
	// Deadline: something inside asked the request's context for its deadline. A timeout, such as
	// http.TimeoutHandler or context.WithTimeout, does so when it is set up, and so do most clients
	// of networks when they send. The response may be that of a timeout, whose work still goes on.
	Deadline bool

	wrote    bool // anything
	stopped  bool // the handler's own context has ended
	aborted  bool // panicked with http.ErrAbortHandler, or after its context had ended
	short    bool // body shorter than Content-Length
	bypassed bool // the response was written to the framework's own writer
	unknown  bool // OutcomeUnknown was called
	harmless bool // NoEffect was called
}

// An endingRow is one row of the table of endings. The texts are those of docs/http.md: a test
// compares them.
type endingRow struct {
	ending  string
	matches func(*Ending) bool
	verdict Verdict
	client  string // what the client gets whose request ran the handler
	later   string // what those get that wait, and later ones
}

const (
	ownResponse  = "its response"
	sharedFreely = "waiting: the same response; later: the handler runs"
	nextAttempt  = "the handler runs as the next attempt, or 500 `interrupted`"
	replayed     = "the same response, `Idempotent-Replayed: true`"
)

// certainEndings are judged before WithShouldRecord is asked: no option can make a broken response
// final, or free a key whose handler was cut off.
var certainEndings = []endingRow{
	{
		ending:  "it called `OutcomeUnknown`",
		matches: func(e *Ending) bool { return e.unknown },
		verdict: Unknown, client: ownResponse, later: nextAttempt,
	}, {
		ending:  "it called `NoEffect`",
		matches: func(e *Ending) bool { return e.harmless },
		verdict: Free, client: ownResponse, later: sharedFreely,
	}, {
		ending:  "it panicked with `http.ErrAbortHandler`, or after its context had ended",
		matches: func(e *Ending) bool { return e.aborted },
		verdict: Unknown, client: "the panic goes on: the connection is cut", later: nextAttempt,
	}, {
		ending:  "it wrote to the framework's own writer, around the middleware",
		matches: func(e *Ending) bool { return e.bypassed },
		verdict: Unknown, client: "what it wrote", later: nextAttempt,
	}, {
		ending:  "its body is shorter than its `Content-Length`",
		matches: func(e *Ending) bool { return e.short },
		verdict: Unknown, client: "what there is: the connection is cut", later: nextAttempt,
	}, {
		ending:  "its context had ended, and it wrote nothing or a status of 400 and above",
		matches: func(e *Ending) bool { return e.stopped && (!e.wrote || e.Status >= 400) },
		verdict: Unknown, client: ownResponse, later: nextAttempt,
	},
}

// defaultEndings are judged by Ending.Verdict. The last one matches everything.
var defaultEndings = []endingRow{
	{
		ending:  "408, 499, 502, 504, 520 to 527, 598, 599",
		matches: func(e *Ending) bool { return gatewayFailed(e.Status) },
		verdict: Unknown, client: ownResponse, later: nextAttempt,
	}, {
		ending:  "425 or 429, not flushed",
		matches: func(e *Ending) bool { return turnedAway(e.Status) && !e.Flushed },
		verdict: Free, client: ownResponse, later: sharedFreely,
	}, {
		ending:  "503, not flushed, and nothing inside asked for the context's deadline",
		matches: func(e *Ending) bool { return e.Status == http.StatusServiceUnavailable && !e.Flushed && !e.Deadline },
		verdict: Free, client: ownResponse, later: sharedFreely,
	}, {
		ending:  "425, 429 or 503 otherwise",
		matches: func(e *Ending) bool { return turnedAway(e.Status) || e.Status == http.StatusServiceUnavailable },
		verdict: Unknown, client: ownResponse, later: nextAttempt,
	}, {
		ending:  "any other status, 400 and 500 included",
		matches: func(*Ending) bool { return true },
		verdict: Record, client: ownResponse, later: replayed,
	},
}

// gatewayFailed reports whether a status says that a server on the way did not get an answer: what
// happened behind it is not known. A guarded handler has the whole request, so that its 408 is not
// about its client. 499, 598 and 599 are those of nginx and of proxies, 520 to 527 of Cloudflare.
func gatewayFailed(status int) bool {
	return 520 <= status && status <= 527 || slices.Contains([]int{
		http.StatusRequestTimeout, 499, http.StatusBadGateway, http.StatusGatewayTimeout, 598, 599,
	}, status)
}

// turnedAway reports whether a status says that the request was not processed: too early (RFC 8470)
// or too many (RFC 6585).
func turnedAway(status int) bool {
	return status == http.StatusTooEarly || status == http.StatusTooManyRequests
}

// Verdict is the default judgement of an ending. A function of WithShouldRecord calls it for the
// endings that it does not know better.
func (e Ending) Verdict() Verdict { return judgeBy(defaultEndings, &e) }

// judgeBy returns the verdict of the first row that matches, 0 if none does.
func judgeBy(rows []endingRow, e *Ending) Verdict {
	for i := range rows {
		if rows[i].matches(e) {
			return rows[i].verdict
		}
	}
	return 0
}

// judge returns the verdict of an ending under the route's options.
func (c *route) judge(e *Ending) Verdict {
	if v := judgeBy(certainEndings, e); v != 0 {
		return v
	}
	switch v := c.shouldRecord(*e); v {
	case Record, Free, Unknown:
		return v
	}
	return Unknown // a function that does not know says so
}
