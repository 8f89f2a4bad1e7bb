// Package history is what is known of a campaign: events in the order and at the times at which
// the provider heard of them. The provider is a process that outlives every worker, so it knows
// what a worker did up to the moment it was killed.
package history

import "time"

// A Kind says what an Event is about.
type Kind string

// Events of a call, in the order in which they occur. A call runs fn at most once, so its id is
// that of its execution as well. Each is acknowledged before the worker goes on: what the worker does
// next happens after the event's time.
const (
	Invoke Kind = "invoke" // a method of the executor is about to be called: Op, Ask
	Begin  Kind = "begin"  // fn begins: Attempt
	Step   Kind = "step"   // fn goes on: Alive
	Lost   Kind = "lost"   // fn's context ended with ErrLeaseLost, or the Observer heard so
	End    Kind = "end"    // fn is about to return: Outcome, Alive
	Return Kind = "return" // the call returned: Result, Of, Intact, Source, Attempt
)

// What the executor's Observer heard, with the call it heard it in, where there is one.
const (
	Renewed     Kind = "renewed"
	Recorded    Kind = "recorded"
	Released    Kind = "released"
	Abandoned   Kind = "abandoned"  // this process ended its own execution without an outcome
	TookOver    Kind = "took over"  // this process found somebody else's dead: Attempt is that one's
	Unrecorded  Kind = "unrecorded" // the commit failed or was refused: Text
	CommitAgain Kind = "commit again"
	Pipelined   Kind = "pipelined"         // commands have shared pipelines: Shared
	Unheard     Kind = "subscription lost" // from its log
)

// What happened to processes and servers.
const (
	Planned   Kind = "planned" // the first event: Plan
	Start     Kind = "start"   // a worker runs
	Kill      Kind = "kill"    // it is about to be killed
	Exit      Kind = "exit"    // it has ended: Text, if not as it should
	Stop      Kind = "stop"    // it is about to be stopped (SIGSTOP)
	Cont      Kind = "cont"    // it was told to go on (SIGCONT)
	Stall     Kind = "stall"   // it did not run for Took, up to now
	Idle      Kind = "idle"    // no call is under way in it and none will begin
	Clean     Kind = "clean"   // it closed its executor and client, and no goroutine is left
	FaultOn   Kind = "fault"   // Fault began; Proc, if it concerns the workers of one post alone
	FaultOff  Kind = "healed"
	LossOn    Kind = "loss on" // from here to LossOff there may be two masters, and one may lose what it took, since Took ago: Slots, Acked
	LossOff   Kind = "loss off"
	Leftover  Kind = "leftover"   // something is left that should not be: Text
	Audited   Kind = "audited"    // Count keys were looked at after everything had ended
	FaultFail Kind = "fault fail" // Fault could not be injected or healed: Text
)

// An Event is one line of a history.
type Event struct {
	Seq int64 `json:"seq"`
	// At is the provider's monotonic clock, counted from the beginning of the campaign.
	At   time.Duration `json:"at"`
	Kind Kind          `json:"kind"`

	Topology string `json:"topo,omitempty"`
	Proc     string `json:"proc,omitempty"` // a worker process; a restarted one has another name
	Key      string `json:"key,omitempty"`
	Call     string `json:"call,omitempty"`

	Op      Op      `json:"op,omitempty"`
	Ask     *Ask    `json:"ask,omitempty"`
	Attempt int     `json:"attempt,omitempty"`
	Alive   bool    `json:"alive,omitempty"` // fn's context had not ended when the execution's last event was acknowledged
	Outcome Outcome `json:"outcome,omitempty"`
	Result  Result  `json:"result,omitempty"`
	Of      string  `json:"of,omitempty"`     // the execution that a value or error comes from
	Intact  bool    `json:"intact,omitempty"` // the value is what that execution returned
	Source  string  `json:"source,omitempty"`
	Joined  bool    `json:"joined,omitempty"` // the call waited for another one of its process (Return)
	Cached  bool    `json:"cached,omitempty"` // the call was answered without a command to Redis (Return)
	// Took is, by the worker's own clock: how long the call had taken when fn began (Begin); how long
	// it took, or how long from the end of fn if it ran that, from the last such end in its RunMany
	// (Return); how long a stall was.
	Took time.Duration `json:"took,omitempty"`
	// Late is how long it took from fn's beginning until the worker knew that the provider knows.
	Late  time.Duration `json:"late,omitempty"` // Step, End
	Fault string        `json:"fault,omitempty"`
	Slots []Range       `json:"slots,omitempty"` // of a Cluster; none means all keys
	Acked bool          `json:"acked,omitempty"` // what the library was told is stored has replica acks, and may not be lost
	Count int           `json:"count,omitempty"`
	Text  string        `json:"text,omitempty"`
	Plan  *Plan         `json:"plan,omitempty"` // the first event's
	// Shares says that the worker's commands share pipelines: its client has few connections, and
	// sends a command whose context has ended (Start).
	Shares bool    `json:"shares,omitempty"`
	Caches bool    `json:"caches,omitempty"` // the worker has a replay cache (Start)
	Shared *Shared `json:"shared,omitempty"`
}

// Shared counts commands that travelled in a pipeline with others.
type Shared struct {
	Claims     int `json:"claims"`
	Commits    int `json:"commits"`
	Unanswered int `json:"unanswered"` // of both: no reply came in the end
}

// An Op is a method of the executor.
type Op string

const (
	Run     Op = "run"
	Get     Op = "get"
	Forget  Op = "forget"
	Resolve Op = "resolve" // its value names the call
)

// An Ask is how a call was made.
type Ask struct {
	NoWait   bool          `json:"noWait,omitempty"`
	Wait     time.Duration `json:"wait"`               // WithWaitTimeout
	Deadline time.Duration `json:"deadline,omitempty"` // of the call's context, counted from the call
	Print    string        `json:"print,omitempty"`    // the fingerprint
	Detached bool          `json:"detached,omitempty"`
	Refuse   bool          `json:"refuse,omitempty"`
	Share    bool          `json:"share,omitempty"` // ShareWithWaiters
	// TTL and ErrorTTL are those of the record, 0 if they are longer than a campaign.
	TTL      time.Duration `json:"ttl,omitempty"`
	ErrorTTL time.Duration `json:"errorTTL,omitempty"`
	// Many is the longest wait among the calls of one RunMany, 0 for a call made alone. All of them
	// return together, with the last one.
	Many time.Duration `json:"many,omitempty"`
}

// An Outcome is how fn ended.
type Outcome string

const (
	Value   Outcome = "value"
	Failed  Outcome = "error"   // to be recorded
	Panic   Outcome = "panic"   // to be recorded
	Ignored Outcome = "ignored" // an error to ignore
	Unknown Outcome = "unknown" // OutcomeUnknown
	Cut     Outcome = "cut"     // its context's error
)

// Recordable reports whether the outcome is to be recorded.
func (o Outcome) Recordable() bool { return o == Value || o == Failed || o == Panic }

// A Result is what a call returned: an outcome of fn, or the name of an error.
type Result string

const (
	GotValue    Result = "value"
	GotError    Result = "error" // fn's, recorded or to be recorded
	GotPanic    Result = "panic"
	GotIgnored  Result = "ignored"
	GotUnknown  Result = "unknown"
	InProgress  Result = "in progress"
	KeyReused   Result = "key reused"
	Interrupted Result = "interrupted"
	LeaseLost   Result = "lease lost"
	NotRecorded Result = "not recorded"
	Unavailable Result = "unavailable"
	NotFound    Result = "not found"
	ContextOver Result = "context"
	Done        Result = "done"  // Forget or Resolve did what it was to
	Other       Result = "other" // no call may return it: Text

	AlreadyRecorded Result = "already recorded"
)

// A Range is a range of a Cluster's slots, both ends included.
type Range struct {
	From int `json:"from"`
	To   int `json:"to"`
}

// A Plan is what the checker needs to know of a campaign.
type Plan struct {
	Seed     uint64        `json:"seed"`
	Duration time.Duration `json:"duration"`
	Lease    time.Duration `json:"lease"`
	// Command bounds one command of a worker's client, for each topology: its timeouts, times its
	// attempts.
	Command map[string]time.Duration `json:"command"`
	Prefix  string                   `json:"prefix"` // of the names in Redis, before the key
	Acks    bool                     `json:"acks"`   // WithReplicaAck where there are replicas
}
