package webhook

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Errors of a Store.
var (
	// ErrBacklogFull: the lane of the event holds as many unsettled events as Arrival.Backlog allows. Nothing was stored.
	ErrBacklogFull = errors.New("webhook: backlog full")

	// ErrTicketLost: the ticket's lease ran out and the event was given to another worker, or it is settled. Nothing was
	// changed.
	ErrTicketLost = errors.New("webhook: the event was given to another worker")

	// ErrNotFound: no such event, or it is past its retention.
	ErrNotFound = errors.New("webhook: no such event")
)

// A Store keeps the events of an inbox. [NewRedisStore] makes one on Redis, package pg/inbox one on Postgres. A custom Store
// must pass [webhooktest.TestStore].
//
// Each method that writes is one atomic step for each event it is given: after a crash at any time, all of the step that
// its comment names has happened, or nothing. Steps of one object are serial: none reads what another one has half
// written. Each may be repeated after an error without harm. A Store is safe for concurrent use by any number of processes.
//
// [webhooktest.TestStore]: https://pkg.go.dev/github.com/idempotent-go/idempotent/webhook/webhooktest#TestStore
type Store interface {
	Queue
	Archive

	// Executor returns an Executor whose records live where the events do. The caller closes it.
	Executor(ExecutorConfig) (Executor, error)

	// Check reports how durable an accepted event is. It returns an error if the store cannot be used at all.
	Check(ctx context.Context) (Durability, error)
}

// A Queue is the part of a Store that intake and workers use.
type Queue interface {
	// Accept makes the event durable and queues it, or, if its key is stored already, adds the receipt to the stored
	// event and changes nothing else. It returns how many deliveries the event had, this one included: 1 means new. A
	// full backlog refuses new events only. Get finds the event by the id of its first delivery at least.
	//
	// One step: the look at the key and the backlog, and the record, its payload, its place in the queue and in the
	// indexes, or the receipt. Of concurrent deliveries of a key, one is new. When Accept returns, the step is durable.
	Accept(ctx context.Context, a Arrival) (deliveries int, err error)

	// Take gives up to n due events to this worker for the lease and returns at once, also if none is due. Of events
	// that name the same object in the same source, at most one is taken at a time. Events whose lease ran out are due
	// again. Events that were redriven come after all others. The step is added to the trail of each event.
	//
	// One step: the choice of a due event, its lease under a new token, and the hold on its object. The state Running, the
	// step of the trail and the read of record, payload and positions may follow, while no other worker can settle an event
	// of the object. Events whose record is past its retention are dropped.
	Take(ctx context.Context, n int, lease time.Duration, step Step) ([]Taken, error)

	// Extend renews the leases of tickets, and returns those that are lost. One step: the comparison of a token and the
	// renewal. An error means that it is unknown which leases were renewed.
	Extend(ctx context.Context, tickets []Ticket, lease time.Duration) (lost []Ticket, err error)

	// Settle moves an event from running to s.State and frees its object. If it sets a position, the parked events of
	// the object become due in the same step. ErrTicketLost means that nothing was changed.
	//
	// One step: the comparison of the token, the state and all that the Settlement holds, the end of the lease and of the
	// hold on the object, the position, and the wake-up of the object's parked events. A wake-up in a second step could be
	// lost, and leave an event parked that is next.
	Settle(ctx context.Context, t Ticket, s Settlement) error

	// Backlog counts events by state. The counts need not be of one moment.
	Backlog(ctx context.Context) (Backlog, error)
}

// An Archive is the part of a Store that operators use.
type Archive interface {
	// Get returns an event with its payload, by key or, if the key is empty, by source and the provider's id. Of several
	// events with that id it returns the one that was received last. ErrNotFound if there is none.
	Get(ctx context.Context, l Lookup) (Record, error)

	// Find returns up to limit events that match the filter, without payloads, the one received last first. cursor
	// continues after the page that returned it; "" is the start, and the end as a returned value. A page may be short
	// or empty before the end.
	Find(ctx context.Context, f Filter, cursor string, limit int) (page []Record, next string, err error)

	// Redrive queues settled events again and returns how many: those whose payload is kept, and that no earlier Redrive
	// of the same name has queued. Together, all calls with this name make at most r.PerSecond events due each second.
	//
	// One step for each event: the look at its state, payload and names of redrives, the name, the new state and due time.
	// Of concurrent calls with one name, one queues the event; a call that ends in the middle leaves the others as they are.
	Redrive(ctx context.Context, events []Ref, r Requeue) (queued int, err error)

	// Erase deletes the payloads of settled events and returns how many it deleted. The rest of the record stays. One step
	// for each event: the look at its state, the deletion and the step of the trail.
	Erase(ctx context.Context, events []Ref, step Step) (erased int, err error)
}

// A Ref finds an event in a Store. Its fields are those of the Record; Object and ID may be empty there, too.
type Ref struct{ Key, Source, Object, ID string }

// A Lookup names one event: by Key, or by Source and the provider's ID.
type Lookup struct{ Key, Source, ID string }

// An Arrival is an event that an inbox accepts.
type Arrival struct {
	// Key is the event's own key: events with the same key are one event. 1 to 128 bytes.
	Key    string
	Source string
	// Event is what the scheme read. Its Body is not stored: Payload has it.
	Event   Event
	Payload Payload
	Receipt Receipt
	// TraceParent is the W3C traceparent of the delivery, which the worker's trace links to; may be empty.
	TraceParent string
	// Retention of the new event. Events, Bodies and Positions must be positive.
	Retention Retention
	// Backlog is how many unsettled events the lane may hold; 0 means any number.
	Backlog int
	Step    Step
}

// Ref returns the event's Ref.
func (a *Arrival) Ref() Ref { return Ref{a.Key, a.Source, a.Event.Object, a.Event.ID} }

// A Payload is what the provider sent. It is deleted before the rest of the record.
type Payload struct {
	Header http.Header
	Body   []byte // byte by byte as received
	// Part is the event's part of Body, where a request carries several events; otherwise nil.
	Part []byte
	// Sealed reports that Body holds header, body and part as a Seal made them; Header and Part are nil then.
	Sealed bool
}

// Retention is how long a Store keeps what it has of an event.
type Retention struct {
	// Events counts from the event's last change of state.
	Events time.Duration
	// Bodies counts from the event's last change of state, too. The payload of a dead letter is kept as long as the
	// event, since a redrive needs it.
	Bodies time.Duration
	// Positions counts from the last event that moved the object.
	Positions time.Duration
}

// A Ticket is a worker's right to settle an event, until its lease runs out.
type Ticket struct {
	Ref
	// Token differs between any two times that the event was taken.
	Token string
}

// A Taken event is due and given to one worker.
type Taken struct {
	Ticket
	// Record has the payload.
	Record Record
	// Positions are the positions of the event's object, by the name of the order.
	Positions map[string]string
}

// A Settlement is the result of handling an event once.
type Settlement struct {
	// State is Retrying, Parked, Done, Stale, Skipped or Dead.
	State State
	// Attempts is the event's new number of attempts, in all.
	Attempts int
	// After is how long until a retrying or parked event is due.
	After time.Duration
	// ParkedUntil is when a parked event stops waiting; it is kept until the event is settled.
	ParkedUntil time.Time
	Cause       Cause
	Reason      string // without payload
	// WaitsFor is the state of the object that a parked event waits for.
	WaitsFor string
	// Changed is what the handler said it changed, as JSON.
	Changed []byte
	// Move is the object's new position; nil leaves it.
	Move      *Move
	Retention Retention
	Step      Step
}

// A Move is a new position of an event's object in an order.
type Move struct{ Order, Position string }

// A Requeue describes a redrive to a Store.
type Requeue struct {
	// Name identifies the redrive: under one name, an event is queued once. 1 to 128 bytes.
	Name string
	// PerSecond is how many events of this redrive become due each second; positive.
	PerSecond float64
	Retention Retention
	Step      Step
}

// Backlog counts events by state.
type Backlog struct {
	Queued   int64 `json:"queued"`
	Running  int64 `json:"running"`
	Retrying int64 `json:"retrying"`
	Parked   int64 `json:"parked"`
	// Dead letters are outside of the backlog: they do not count against Arrival.Backlog.
	Dead int64 `json:"dead"`
	// OldestDue is how long the event that waits longest for a worker has been due; 0 if none is. Events that wait for
	// their object do not count.
	OldestDue time.Duration `json:"oldest_due_ns"`
	// Lanes are the unsettled events of each lane.
	Lanes []int64 `json:"lanes"`
}

// Unsettled is how many events still have to reach a final state.
func (b Backlog) Unsettled() int64 { return b.Queued + b.Running + b.Retrying + b.Parked }

// Durability says what a 2xx promises.
type Durability struct {
	// Survives is what an accepted event survives, in one sentence.
	Survives string
	// Unsafe reports that a restart of the store loses accepted events. An inbox does not start on such a store, unless
	// WithUnsafeStore says so.
	Unsafe bool
	// Advice is what to change; empty if nothing.
	Advice []string
}
