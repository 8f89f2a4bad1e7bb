package endpoint

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/idempotent-go/idempotent"
)

// deadShown is how many dead letters are shown at once, the oldest ones.
const deadShown = 100

// An operations answers the people who run this. What it tells and does is not for the public.
type operations struct {
	store    *store
	executor *idempotent.Executor[Change]
	logger   *slog.Logger
}

func (op *operations) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /events/{provider}/{id}", op.event)
	mux.HandleFunc("GET /dead", op.dead)
	mux.HandleFunc("POST /dead/{key}/replay", op.replay)
	mux.HandleFunc("GET /backlog", op.backlog)
	return mux
}

// An Answer says all there is to know of an event.
type Answer struct {
	Key       string          `json:"key"`
	Received  Received        `json:"received"`
	Processed Processed       `json:"processed"`
	Changed   json.RawMessage `json:"changed,omitempty"` // a Change; nothing if it was not processed
}

// Received says when and how often it came.
type Received struct {
	First      time.Time `json:"first"`
	Last       time.Time `json:"last"`
	Deliveries int       `json:"deliveries"`
	ID         string    `json:"id"` // the first one, if the provider uses several
	Type       string    `json:"type"`
}

// Processed says where it stands.
type Processed struct {
	State    string     `json:"state"` // yes, running, interrupted, queued, retrying, dead
	At       *time.Time `json:"at,omitempty"`
	Attempts int        `json:"attempts"`
	NextTry  *time.Time `json:"next_try,omitempty"`
	Reason   string     `json:"reason,omitempty"` // of the last failure
}

func (op *operations) event(w http.ResponseWriter, r *http.Request) {
	ev, err := op.store.find(r.Context(), r.PathValue("provider"), r.PathValue("id"))
	if err != nil {
		op.failed(w, err)
		return
	}
	if ev == nil {
		http.Error(w, "never received, or too long ago", http.StatusNotFound)
		return
	}
	status, err := op.executor.Peek(r.Context(), ev.runKey())
	if err != nil && !errors.Is(err, idempotent.ErrCorruptRecord) { // that is in the dead letter
		op.failed(w, err)
		return
	}
	writeJSON(w, http.StatusOK, describe(ev, status))
}

// describe joins what the queue knows with what the executor knows, which is never behind.
func describe(ev *stored, status idempotent.Status) Answer {
	return Answer{
		Key: ev.key,
		Received: Received{
			First: ev.received, Last: ev.lastReceived, Deliveries: ev.deliveries, ID: ev.id, Type: ev.kind,
		},
		Processed: Processed{
			State:    state(ev, status.State),
			At:       given(ev.processed),
			Attempts: max(ev.attempts, status.Attempt),
			NextTry:  given(ev.due),
			Reason:   ev.reason,
		},
		Changed: json.RawMessage(ev.changed),
	}
}

func state(ev *stored, s idempotent.State) string {
	switch {
	case s == idempotent.StateSucceeded || ev.changed != "":
		return "yes"
	case s == idempotent.StateRunning:
		return "running"
	case s == idempotent.StateFailed || !ev.died.IsZero():
		return "dead"
	case s == idempotent.StateAbandoned || s == idempotent.StateInterrupted:
		return "interrupted"
	case !ev.due.IsZero():
		return "retrying"
	}
	return "queued"
}

// given is nil for no time.
func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// A DeadLetter is an event that is not tried any more.
type DeadLetter struct {
	Key         string          `json:"key"` // for POST /dead/{key}/replay
	Provider    string          `json:"provider"`
	ID          string          `json:"id"`
	Type        string          `json:"type"`
	Reason      string          `json:"reason"`
	Attempts    int             `json:"attempts"`
	FirstFailed time.Time       `json:"first_failed"`
	LastFailed  time.Time       `json:"last_failed"`
	Replays     int             `json:"replays"`
	Body        json.RawMessage `json:"body"`
}

func (op *operations) dead(w http.ResponseWriter, r *http.Request) {
	events, err := op.store.deadLetters(r.Context(), deadShown)
	if err != nil {
		op.failed(w, err)
		return
	}
	letters := []DeadLetter{} // [] and not null, for those who look
	for _, ev := range events {
		letters = append(letters, DeadLetter{
			Key: ev.key, Provider: ev.provider, ID: ev.id, Type: ev.kind, Reason: ev.reason,
			Attempts: ev.attempts, FirstFailed: ev.firstFailed, LastFailed: ev.lastFailed,
			Replays: ev.replays, Body: ev.body,
		})
	}
	writeJSON(w, http.StatusOK, letters)
}

func (op *operations) replay(w http.ResponseWriter, r *http.Request) {
	ok, err := op.store.replay(r.Context(), r.PathValue("key"))
	switch {
	case err != nil:
		op.failed(w, err)
	case !ok:
		http.Error(w, "no such dead letter, or replayed already", http.StatusNotFound)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

func (op *operations) backlog(w http.ResponseWriter, r *http.Request) {
	b, err := op.store.unsettled(r.Context())
	if err != nil {
		op.failed(w, err)
		return
	}
	writeJSON(w, http.StatusOK, b)
}

func (op *operations) failed(w http.ResponseWriter, err error) {
	op.logger.Error("a question is not answered", "error", err)
	http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // whoever is gone does not need it
}
