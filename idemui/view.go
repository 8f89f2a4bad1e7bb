package idemui

import (
	"encoding/base64"
	"encoding/hex"
	"html/template"
	"net/url"
	"time"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/present"
)

// A view is what the template draws.
type view struct {
	Nonce, Problem, Note                string
	States                              []idempotent.State
	Groups                              []*group // of the overview
	Total                               int
	Cut                                 string // why a scan stopped, "" if it did not
	Filter                              filter
	Listing                             bool
	Entries                             []idempotent.Entry
	One                                 *idempotent.Entry
	Payload, Codec                      string
	HasPayload                          bool
	MayPayload, MayForget, MayResolve   bool
	Typed, Value, ResolveCodec, Refused string // of a form that was refused
}

// A filter is the form above the list.
type filter struct{ Namespace, Prefix, State, Owner, Older string }

// states are what can be stored, in the order of tables.
var states = []idempotent.State{
	idempotent.StateRunning, idempotent.StateAbandoned, idempotent.StateInterrupted, idempotent.StateUnreadable,
	idempotent.StateValueNotKept, idempotent.StateFailed, idempotent.StateSucceeded,
}

// marks tell states apart without colours.
var marks = map[idempotent.State]string{
	idempotent.StateRunning: "▶", idempotent.StateAbandoned: "◐", idempotent.StateInterrupted: "■", idempotent.StateUnreadable: "?",
	idempotent.StateValueNotKept: "◇", idempotent.StateFailed: "✕", idempotent.StateSucceeded: "✓", idempotent.StateAbsent: "–",
}

// classes are the names of states in the style sheet.
var classes = map[idempotent.State]string{
	idempotent.StateRunning: "running", idempotent.StateAbandoned: "abandoned", idempotent.StateInterrupted: "interrupted",
	idempotent.StateUnreadable: "unreadable", idempotent.StateValueNotKept: "notkept", idempotent.StateFailed: "failed",
	idempotent.StateSucceeded: "succeeded", idempotent.StateAbsent: "absent",
}

var functions = template.FuncMap{
	"span": present.Span, "size": present.Size, "printable": present.Text, "id": keyID,
	"mark":  func(s idempotent.State) string { return marks[s] },
	"class": func(s idempotent.State) string { return classes[s] },
	"hex":   hex.EncodeToString,
	"time":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") + " UTC" },
	"link":  func(e *idempotent.Entry) string { return "key?" + query(e.Namespace, e.Key) },
	"within": func(namespace string, s idempotent.State) string {
		return "list?" + url.Values{"namespace": {namespace}, "state": {s.String()}}.Encode()
	},
	"ref":    func(e idempotent.Entry) *idempotent.Entry { return &e },
	"unread": func(e *idempotent.Entry) bool { return e.State == idempotent.StateUnreadable },
	"absent": func(e *idempotent.Entry) bool { return e.State == idempotent.StateAbsent },
	"settled": func(e *idempotent.Entry) bool {
		return e.State == idempotent.StateSucceeded || e.State == idempotent.StateFailed
	},
	"unfinished": func(e *idempotent.Entry) bool {
		return e.State == idempotent.StateRunning || e.State == idempotent.StateAbandoned
	},
	"text": present.Error,
}

func query(namespace, key string) string {
	return url.Values{"namespace": {namespace}, "id": {keyID(key)}}.Encode()
}

// keyID is a key in a form that a browser sends back unchanged, whatever bytes it has.
func keyID(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }
