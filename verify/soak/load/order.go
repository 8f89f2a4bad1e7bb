// Package load is a worker: a process that makes calls, all modes of the library among them, and
// tells the provider all that happens.
package load

import "time"

// An Order is what a worker is to do. It gets it as JSON in its environment.
type Order struct {
	Topology string
	Proc     string
	Provider string // the address of the provider's socket
	Seed     uint64
	Began    time.Time // of the campaign: which keys are new follows from it
	Lease    time.Duration
	Rate     float64 // calls a second
	NewKeys  float64 // new keys a second, over all workers

	// Kind is "single", "sentinel" or "cluster". Addrs are those of servers or sentinels, Master is
	// the name by which Sentinel knows the master.
	Kind   string
	Addrs  []string
	Master string
	// Proxies leads from the address of a server to that of the proxy before it.
	Proxies map[string]string
	Acks    int           // WithReplicaAck, 0 for without
	AckWait time.Duration // how long for

	// Shares is for a client with so few connections that commands share pipelines, and calls that
	// come in crowds.
	Shares bool

	Cache int // WithReplayCache, 0 for without

	// Operators is how many workers forget and resolve keys, Operator which of them this one is.
	Operators, Operator int

	// Audit is a number of keys to look at, once each, instead of making calls.
	Audit int
}

// Namespace is that of all workers.
const Namespace = "soak"

// Env is the variable that the order is in.
const Env = "IDEMPOTENT_SOAK_WORKER"

// What the campaign and a worker say to each other on the worker's standard input and output.
const (
	SayStop  = "stop\n"  // make no more calls
	SayClose = "close\n" // close the executor and end
)
