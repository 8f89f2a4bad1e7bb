package main

import (
	"errors"
	"time"

	"github.com/idempotent-go/idempotent"
)

// A setup is what a child is told.
type setup struct {
	Number    int    // of a worker; the front has 0
	RedisURL  string // here and not in the arguments, where a password could be seen
	BankURL   string
	Namespace string // of the executor, and the name of the queue
}

// A message is what a child tells: one of these.
type message struct {
	Event    *event    `json:",omitempty"`
	Delivery *delivery `json:",omitempty"`
}

// A ready is the answer of a child that is at work.
type ready struct{ URL string } // of the front

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
