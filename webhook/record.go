package webhook

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// A State is a state of an event.
type State string

// States of an event. Queued, Running, Retrying and Parked are unsettled, the others settled.
const (
	// Queued: stored, and waiting for a worker.
	Queued State = "queued"
	// Running: a worker has it.
	Running State = "running"
	// Retrying: an attempt failed, the next one is due at Record.Due.
	Retrying State = "retrying"
	// Parked: it is ahead of its object and waits for the event before it.
	Parked State = "parked"
	// Done: its handler succeeded.
	Done State = "done"
	// Stale: its object is past it. No handler ran.
	Stale State = "stale"
	// Skipped: no handler wanted it, or its handler returned Skip.
	Skipped State = "skipped"
	// Dead: a dead letter. Only a redrive tries it again.
	Dead State = "dead"
)

// States returns each State once.
func States() []State {
	return []State{Queued, Running, Retrying, Parked, Done, Stale, Skipped, Dead}
}

// Settled reports whether an event in this state is tried again only by a redrive.
func (s State) Settled() bool {
	return s == Done || s == Stale || s == Skipped || s == Dead
}

// A Cause says why an event is retrying, parked, stale, skipped or dead. Dead letters are grouped by it. The list is
// closed, so that a cause can be a metric's label.
type Cause string

// Causes.
const (
	// CauseError: the handler returned an error.
	CauseError Cause = "error"
	// CausePermanent: the handler returned an error marked with Permanent.
	CausePermanent Cause = "permanent"
	// CausePanic: the handler panicked.
	CausePanic Cause = "panic"
	// CauseAttempts: the last allowed attempt failed.
	CauseAttempts Cause = "attempts"
	// CauseInterrupted: an attempt ended without an outcome, and the handler was registered with Interrupted(Refuse).
	CauseInterrupted Cause = "interrupted"
	// CauseCircuit: the circuit of the handler was open, so it did not run.
	CauseCircuit Cause = "circuit"
	// CauseUnavailable: Redis, or the store of the executor, could not be asked, so the handler did not run.
	CauseUnavailable Cause = "unavailable"
	// CauseInProgress: another worker runs the handler for this event.
	CauseInProgress Cause = "in_progress"
	// CauseAhead: the event is ahead of its object.
	CauseAhead Cause = "ahead"
	// CauseMissing: the event before it did not come within ParkFor.
	CauseMissing Cause = "missing_predecessor"
	// CauseBehind: the object is past the event.
	CauseBehind Cause = "behind"
	// CauseConflict: neither state of the object leads to the other.
	CauseConflict Cause = "conflict"
	// CauseNotConfirmed: the provider does not know the event.
	CauseNotConfirmed Cause = "not_confirmed"
	// CauseUnconfirmed: the provider could not be asked for the event.
	CauseUnconfirmed Cause = "unconfirmed"
	// CauseSkip: the handler returned Skip.
	CauseSkip Cause = "skip"
	// CauseNoHandler: no handler is registered for the source and type.
	CauseNoHandler Cause = "no_handler"
	// CauseUnreadable: the stored payload or record cannot be read.
	CauseUnreadable Cause = "unreadable"
)

// A Record is what is known of an event.
type Record struct {
	Key        string    `json:"key"`
	Source     string    `json:"source"`
	ID         string    `json:"id"`
	Type       string    `json:"type"`
	Object     string    `json:"object,omitempty"`
	Version    int64     `json:"version,omitempty"`
	OccurredAt time.Time `json:"occurred_at,omitzero"` // by the provider's clock
	Unsigned   bool      `json:"unsigned,omitempty"`

	ReceivedAt time.Time `json:"received_at"` // the first delivery
	// Receipts are the first deliveries, at most MaxReceipts; Deliveries counts all.
	Receipts    []Receipt `json:"receipts"`
	Deliveries  int       `json:"deliveries"`
	TraceParent string    `json:"traceparent,omitempty"`

	State State `json:"state"`
	// Attempts counts the executions of the handler since the event was received, AttemptsBefore those before the last
	// redrive.
	Attempts       int       `json:"attempts"`
	AttemptsBefore int       `json:"attempts_before,omitempty"`
	Redrives       int       `json:"redrives,omitempty"`
	Cause          Cause     `json:"cause,omitempty"`
	Reason         string    `json:"reason,omitempty"`
	WaitsFor       string    `json:"waits_for,omitempty"`
	Due            time.Time `json:"due,omitzero"` // of an unsettled event that is not running
	ParkedUntil    time.Time `json:"parked_until,omitzero"`
	SettledAt      time.Time `json:"settled_at,omitzero"`
	// Applied reports that the event once was Done.
	Applied bool `json:"applied,omitempty"`
	// Changed is what the handler said it changed.
	Changed json.RawMessage `json:"changed,omitempty"`
	// Trail are the last steps of the event, at most MaxSteps; Steps counts all.
	Trail []Step `json:"trail"`
	Steps int    `json:"steps"`
	// Erased reports that the payload was erased on demand.
	Erased bool `json:"erased,omitempty"`
	// Payload is nil if it was not asked for, or is past its retention or erased.
	Payload *Payload `json:"-"`
}

// Ref returns the event's Ref.
func (r *Record) Ref() Ref { return Ref{r.Key, r.Source, r.Object, r.ID} }

// Limits of what a Store keeps of one event.
const (
	MaxReceipts = 20
	MaxSteps    = 64
)

// A Receipt is one delivery of an event.
type Receipt struct {
	At   time.Time `json:"at"`
	Peer string    `json:"peer,omitempty"` // the sender's address
}

// A Step is one change of an event.
type Step struct {
	At    time.Time `json:"at"`
	State State     `json:"state,omitempty"`
	// By names the process, or the person or program that an admin handler was told of.
	By      string `json:"by,omitempty"`
	TraceID string `json:"trace_id,omitempty"`
	Attempt int    `json:"attempt,omitempty"`
	// Note is a short text without payload: the cause and reason of a settlement, the name of a redrive.
	Note string `json:"note,omitempty"`
}

// A Filter selects events. The zero value selects all; conditions are joined by and.
type Filter struct {
	Source string
	// Type is a type, or the beginning of one followed by "*".
	Type   string
	Object string // needs Source
	States []State
	// From and To bound ReceivedAt: From inclusive, To exclusive. Zero means unbounded.
	From, To time.Time
	Cause    Cause
	// Reason is a part of Record.Reason.
	Reason string
}

// Matches reports whether the filter selects the event.
func (f *Filter) Matches(r *Record) bool {
	return (f.Source == "" || f.Source == r.Source) &&
		matchesType(f.Type, r.Type) &&
		(f.Object == "" || f.Object == r.Object) &&
		(len(f.States) == 0 || slices.Contains(f.States, r.State)) &&
		(f.From.IsZero() || !r.ReceivedAt.Before(f.From)) &&
		(f.To.IsZero() || r.ReceivedAt.Before(f.To)) &&
		(f.Cause == "" || f.Cause == r.Cause) &&
		strings.Contains(r.Reason, f.Reason)
}

// matchesType reports whether a pattern, a type or a prefix with "*" after it, selects a type. "" selects all.
func matchesType(pattern, typ string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(typ, prefix)
	}
	return pattern == "" || pattern == typ
}
