package webhook

import "context"

// A Confirm asks the provider whether an unsigned event is true, and returns the event as the provider states it. The
// returned event replaces the one of the request, because nothing in that can be believed; its ID must be the same, or the
// event is refused. A *RefusedError means that the event is false: no handler sees it. Any other error (a timeout, a 500)
// means that the provider could not be asked: the Confirm is tried again.
//
// An unsigned event that was refused must not make a later one with the same ID a duplicate: otherwise an
// attacker that guesses an ID could keep the true event out by sending it first. A receiver forgets the ID, and asks again.
//
// A Confirm runs in a worker, after the request was answered: every sender of a request can make it run, so bound
// its time and its rate.
type Confirm func(ctx context.Context, e Event) (Event, error)
