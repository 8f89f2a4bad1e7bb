package main

import (
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent"
)

// The parent writes a setup to a child's standard input and keeps that open: when it ends, so does
// the child. The child writes messages to its standard output, one JSON value on each line.

// A setup is what a child is told.
type setup struct {
	Number    int    // of a worker; the front has 0
	RedisURL  string // here and not in the arguments, where a password could be seen
	BankURL   string
	Namespace string // of the executor, and the name of the queue
}

// A message is one of these.
type message struct {
	Ready    *ready    `json:",omitempty"`
	Event    *event    `json:",omitempty"`
	Delivery *delivery `json:",omitempty"`
}

// A ready is the first message: the child is at work.
type ready struct{ URL string }

// An event is one that the executor's Observer got.
type event struct {
	Kind    idempotent.EventKind
	Key     string
	Attempt int
	Error   string
	At      time.Time
}

// A delivery is what a worker had of one delivery of a job.
type delivery struct {
	Worker  int
	Task    string // asynq's id
	Key     string
	Receipt Receipt
	Source  idempotent.Source
	Attempt int
	At      time.Time

	Error    string        // its text, empty if there was none
	Refused  *RefusedError // by errors.As
	Replayed bool          // errors.Is(err, idempotent.ErrReplayed)
}

func (d *delivery) setError(err error) {
	if err == nil {
		return
	}
	d.Error = err.Error()
	d.Refused, _ = errors.AsType[*RefusedError](err)
	d.Replayed = errors.Is(err, idempotent.ErrReplayed)
}

// A line is a child's line to its parent.
type line struct {
	mu  sync.Mutex
	out *json.Encoder
}

func newLine(out io.Writer) *line { return &line{out: json.NewEncoder(out)} }

// send fails only when the parent is gone, and then standard input ends as well.
func (l *line) send(m message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.out.Encode(m)
}
