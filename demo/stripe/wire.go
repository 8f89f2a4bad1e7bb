package main

import "github.com/idempotent-go/idempotent"

// A setup is the first thing a worker is told.
type setup struct {
	Worker    int
	RedisURL  string // here and not in the arguments, where it could be seen; like the next one
	StripeKey string
	StripeURL string // empty for Stripe's own
	Namespace string
}

// A task asks for a Payment, in several calls at once.
type task struct {
	Payment Payment
	Callers int
	Bare    bool // without Run: what goes wrong without it
}

// An event is one that the executor's Observer got.
type event struct {
	Kind    idempotent.EventKind
	Key     string
	Attempt int
	Failed  bool // it came with an error
}

// An outcome is what one caller got.
type outcome struct {
	Worker  int
	Charge  Charge
	Source  idempotent.Source
	Attempt int

	Error     string   // its text, empty if there was none
	Stripe    *refusal // by errors.As
	Replayed  bool     // errors.Is(err, idempotent.ErrReplayed)
	Retryable bool     // idempotent.IsRetryable(err)
}

// A refusal is what a caller finds in a *stripe.Error.
type refusal struct {
	Status      int
	Type        string
	Code        string
	DeclineCode string
	Request     string
	Intent      string
}
