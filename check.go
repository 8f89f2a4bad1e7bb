package idempotent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

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
	// SeverityNotice: nothing that has to change; somebody should know it, for instance that Check
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
	// FindingClockJump: the server's clock jumped, or ran wrong, by which leases and TTLs count.
	FindingClockJump FindingCode = "clock-jump"
	// FindingClockOff: the clocks of the server and of this machine differ, so one of them is wrong.
	FindingClockOff FindingCode = "clock-off"
	// FindingReplicaClock: the clocks of a Cluster's master and its replica differ, so that a
	// failover changes what is left of leases and TTLs.
	FindingReplicaClock FindingCode = "replica-clock"
	// FindingNotChecked: the server does not let Check look at something.
	FindingNotChecked FindingCode = "not-checked"
)

// Check looks at the servers behind the client and returns what makes them a bad place for an
// executor's records, the worst first: each master of a Cluster, each shard of a Ring that is up,
// the one server otherwise. No findings mean that all was looked at and is well. It is meant for
// the start of a program, and for a health report now and then: the clocks of the servers are
// compared with what the last Check of this executor saw.
//
// Check reads INFO, CONFIG GET, TIME and ACL DRYRUN. What the client's user may not ask is a
// FindingNotChecked; without ACL DRYRUN, it tries each command of an executor on a name that is
// no operation's, in a form that changes nothing. It costs about six round trips and, for the
// latter, one connection. Calls may be concurrent.
//
// ErrUnavailable: some server could not be asked, or ctx ended before it had answered; the
// findings beside it are those of the servers that did answer.
func (e *Executor[T]) Check(ctx context.Context) ([]Finding, error) { return e.core.check(ctx) }

// A checkup is one Check.
type checkup struct {
	core *core
	last map[string]reckoning // the clocks at the last Check

	mu       sync.Mutex
	findings []Finding
	clocks   map[string]reckoning // by server
	errs     []error
}

func (c *core) check(ctx context.Context) ([]Finding, error) {
	if ctx == nil {
		return nil, invalid("Check", "ctx", "nil", "a context")
	}
	if _, err := c.admit(ctx, ""); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k := &checkup{core: c, last: c.clocks.recall(), clocks: make(map[string]reckoning)}
	done := make(chan struct{})
	go func() { // a server that hangs may keep it longer than the caller has
		defer c.active.leave()
		defer close(done)
		defer k.survive()
		k.run(ctx)
	}()
	select {
	case <-done:
		return k.result()
	case <-c.closing.Done():
		return nil, ErrClosed
	case <-ctx.Done():
		k.failed(contextError(ctx))
		return k.result()
	}
}

func (k *checkup) run(ctx context.Context) {
	servers, err := k.servers(ctx)
	if err != nil {
		k.failed(err)
		return
	}
	var looking sync.WaitGroup
	for _, s := range servers {
		looking.Go(func() {
			defer k.survive()
			k.add(s.inspect(ctx))
		})
	}
	looking.Wait()
	k.replicaClocks(ctx)
	k.core.clocks.remember(k.clocks)
}

// add takes what an inspection found.
func (k *checkup) add(s *inspection) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.findings = append(k.findings, s.findings...)
	switch {
	case s.clock.known():
		k.clocks[s.address] = s.clock
	case s.last.known():
		k.clocks[s.address] = s.last
	}
	switch {
	case s.err != nil && s.address != "":
		k.errs = append(k.errs, fmt.Errorf("%s: %w", s.address, s.err))
	case s.err != nil:
		k.errs = append(k.errs, s.err)
	}
}

func (k *checkup) report(f Finding) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.findings = append(k.findings, f)
}

func (k *checkup) failed(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.errs = append(k.errs, err)
}

// survive makes a failure of a hook that panics.
func (k *checkup) survive() {
	if v := recover(); v != nil {
		k.failed(hookPanic(v))
	}
}

func (k *checkup) result() ([]Finding, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	findings := slices.Clone(k.findings)
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(-cmp.Compare(a.Severity, b.Severity), strings.Compare(a.Server, b.Server))
	})
	if len(k.errs) > 0 {
		return findings, redisError(ErrUnavailable, errors.Join(k.errs...))
	}
	return findings, nil
}

// The clients whose servers can be listed, beyond cluster.
type (
	replicated interface {
		ForEachSlave(ctx context.Context, fn func(context.Context, *redis.Client) error) error
		ClusterSlots(ctx context.Context) *redis.ClusterSlotsCmd
	}
	shards interface {
		GetShardClients() []*redis.Client // those that are up
		Options() *redis.RingOptions
	}
)

var (
	errNoShard  = errors.New("no shard of the Ring is up")
	errNoMaster = errors.New("no master of the Cluster is known")
)

// servers lists what there is to inspect.
func (k *checkup) servers(ctx context.Context) ([]*inspection, error) {
	var found []*inspection
	if cluster := k.core.store.cluster; cluster != nil {
		masters, _ := k.core.store.nodes(ctx) // noMaster says why there are none
		for address, server := range masters {
			found = append(found, k.inspection(address, server))
		}
		if len(found) == 0 {
			return nil, k.noMaster(ctx, cluster)
		}
		k.ownNames(ctx, cluster, found)
		return found, nil
	}
	switch client := k.core.store.client.(type) {
	case shards:
		for _, server := range client.GetShardClients() {
			found = append(found, k.inspection(server.Options().Addr, server))
		}
		if len(found) == 0 {
			return nil, errNoShard
		}
		k.shardsDown(client.Options().Addrs, found)
	case *redis.Client:
		found = append(found, k.inspection(client.Options().Addr, client))
	default:
		found = append(found, k.inspection("", client))
	}
	return found, nil
}

// shardsDown finds the shards that a Ring goes on without.
func (k *checkup) shardsDown(addrs map[string]string, up []*inspection) {
	down := make(map[string]bool)
	for _, address := range addrs {
		down[address] = true
	}
	for _, s := range up {
		if !down[s.address] { // SetAddrs gave the Ring other shards
			return
		}
	}
	for _, s := range up {
		delete(down, s.address)
	}
	for address := range down {
		k.report(Finding{
			Code: FindingShardDown, Severity: SeverityUnsafe, Server: address,
			Detail: "the shard is down, or was taken out of the Ring, which sends its keys to other shards: what it has recorded runs again there",
			Advice: "Bring it back before anything runs, or use a Cluster",
		})
	}
}

// noMaster says why none is known.
func (k *checkup) noMaster(ctx context.Context, client cluster) error {
	_, err := client.MasterForKey(ctx, redisName(k.core.namespace, ""))
	return cmp.Or(err, errNoMaster)
}

// inspection begins with the name of the empty key, which is no operation's.
func (k *checkup) inspection(address string, client redis.UniversalClient) *inspection {
	name := redisName(k.core.namespace, "")
	return &inspection{core: k.core, address: address, client: client, name: name, own: name, last: k.last[address]}
}

// maxNames bounds the search for a name of each master: with thousands of tries, even one that
// has a hundredth of the slots is found.
const maxNames = 4096

// ownNames finds a name in a slot of each master, where a write comes to the checks that follow
// the redirection.
func (k *checkup) ownNames(ctx context.Context, client cluster, found []*inspection) {
	missing := make(map[string]*inspection)
	for _, s := range found {
		missing[s.address] = s
	}
	for i := 0; i < maxNames && len(missing) > 0; i++ {
		name := redisName(k.core.namespace, fmt.Sprint(i))
		master, err := client.MasterForKey(ctx, name)
		if err != nil {
			return
		}
		if s := missing[master.Options().Addr]; s != nil {
			s.own = name
			delete(missing, s.address)
		}
	}
}
