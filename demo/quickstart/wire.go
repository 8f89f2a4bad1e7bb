package main

import (
	"time"

	"github.com/idempotent-go/idempotent"
)

// A setup is the first thing a worker is told.
type setup struct {
	Worker      int
	RedisURL    string // here and not in the arguments, where a password could be seen
	ProviderURL string
	Namespace   string
}

// A task is a request to a worker. Without callers it asks for the counts alone.
type task struct {
	Order   Order
	Callers int // how many call Run at once
}

// An event is one that the executor's Observer got.
type event struct {
	Kind    idempotent.EventKind
	Key     string
	Attempt int
	Error   string
	At      time.Time
}

// An answer says what the callers of a task got, and what the worker has sent to Redis so far.
type answer struct {
	Outcomes []outcome
	Commands commands
}

// An outcome is what one caller of Run got.
type outcome struct {
	Worker   int
	Charge   Charge
	Source   idempotent.Source
	Attempt  int
	Returned time.Time

	Error     string     // its text, empty if there was none
	Card      *CardError // by errors.As
	Replayed  bool       // errors.Is(err, idempotent.ErrReplayed)
	KeyReused bool       // errors.Is(err, idempotent.ErrKeyReused)
	Retryable bool       // idempotent.IsRetryable(err)
}
