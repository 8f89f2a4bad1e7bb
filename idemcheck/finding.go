// Package idemcheck has what Check of an executor finds about its Redis servers: Findings, each with a
// stable code, a severity and advice. It inspects nothing itself.
package idemcheck

import "fmt"

// A Finding is something that Check found, and what to do about it.
type Finding struct {
	Code     FindingCode
	Severity Severity
	// Server is the address of the server, as the client has it; "" when the client does not tell.
	Server string
	// Detail is what was found: one sentence, without values or secrets.
	Detail string
	// Advice is what to do: one sentence.
	Advice string
}

// String is the whole finding in one line.
func (f Finding) String() string {
	server := ""
	if f.Server != "" {
		server = f.Server + ": "
	}
	return fmt.Sprintf("%v (%s): %s%s. %s.", f.Severity, f.Code, server, f.Detail, f.Advice)
}

// A Severity says how much a Finding matters. They are ordered.
type Severity uint8

const (
	// SeverityNotice: nothing that has to change, and worth knowing, for instance that Check
	// may not look at something.
	SeverityNotice Severity = iota + 1
	// SeverityWarning: everything works, less well than it might, or until a rare failure.
	SeverityWarning
	// SeverityUnsafe: operations fail, or what is recorded can be lost by what happens every day, so
	// that fn runs again.
	SeverityUnsafe
)

func (s Severity) String() string {
	switch s {
	case SeverityNotice:
		return "notice"
	case SeverityWarning:
		return "warning"
	case SeverityUnsafe:
		return "unsafe"
	}
	return fmt.Sprintf("Severity(%d)", uint8(s))
}

// A FindingCode says what a Finding is about. Codes do not change; later versions may add some.
type FindingCode string

const (
	// FindingOldVersion: the server is older than Redis 7.0. Unsafe below 5.0, and below 7.0 on
	// Cluster.
	FindingOldVersion FindingCode = "old-version"
	// FindingWrongClient: the client is for another kind of server: one for a single server on a
	// node of a Cluster, or one that talks to a Sentinel itself.
	FindingWrongClient FindingCode = "wrong-client"
	// FindingShardDown: a shard of the Ring is down, and its keys go to other shards.
	FindingShardDown FindingCode = "shard-down"
	// FindingActiveActive: the server accepts writes that another master accepts as well, so that one key
	// has two owners. Check knows it of KeyDB; it cannot tell a CRDT database from another one.
	FindingActiveActive FindingCode = "active-active"
	// FindingReplica: the server is a replica, and refuses writes or loses them.
	FindingReplica FindingCode = "replica"
	// FindingWritesRefused: the server refuses writes at the moment.
	FindingWritesRefused FindingCode = "writes-refused"
	// FindingEviction: the maxmemory-policy evicts records.
	FindingEviction FindingCode = "eviction"
	// FindingMissingCommand: the client's user may not send a command that an executor sends, or the
	// server does not know it.
	FindingMissingCommand FindingCode = "missing-command"
	// FindingMissingKeys: the client's user may not use the names of the namespace.
	FindingMissingKeys FindingCode = "missing-keys"
	// FindingMissingChannels: the client's user may not use the channels of the namespace.
	FindingMissingChannels FindingCode = "missing-channels"
	// FindingNoPersistence: nothing is written to disk.
	FindingNoPersistence FindingCode = "no-persistence"
	// FindingNoAppendOnly: the append-only file is off; snapshots alone, if any, are written to disk.
	FindingNoAppendOnly FindingCode = "no-append-only-file"
	// FindingFsync: the append-only file is not synced with each write.
	FindingFsync FindingCode = "fsync"
	// FindingPersistenceFails: the last write to disk failed.
	FindingPersistenceFails FindingCode = "persistence-fails"
	// FindingFewReplicas: there are fewer replicas than WithReplicaAck asks for.
	FindingFewReplicas FindingCode = "few-replicas"
	// FindingCutOffMaster: a master that is cut off from its replicas goes on taking writes.
	FindingCutOffMaster FindingCode = "cut-off-master"
	// FindingShortLease: a failover of the Cluster takes longer than the lease.
	FindingShortLease FindingCode = "short-lease"
	// FindingPubSubBuffer: a subscriber is cut off by a single message of the largest size.
	FindingPubSubBuffer FindingCode = "pubsub-buffer"
	// FindingClockOff: the clocks of the server and of this machine differ, so one of them is wrong.
	FindingClockOff FindingCode = "clock-off"
	// FindingReplicaClock: the clocks of a Cluster's master and its replica differ, so that a
	// failover changes what is left of leases and TTLs.
	FindingReplicaClock FindingCode = "replica-clock"
	// FindingNotChecked: the server does not let Check look at something.
	FindingNotChecked FindingCode = "not-checked"
)
