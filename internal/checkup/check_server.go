package checkup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/idemcheck"
	"github.com/idempotent-go/idempotent/internal/rediserr"
)

// An inspection is one server's part of a Check. Each step appends to findings; the first failure
// that is not the server's own word ends it.
type inspection struct {
	core    *Checker
	address string
	client  redis.UniversalClient
	name    string // of no operation
	own     string // in a slot of this server; written to by no command that succeeds

	info     map[string]string // empty when it may not be read
	config   map[string]string
	clock    clockSample
	findings []idemcheck.Finding
	err      error
}

func (s *inspection) inspect(ctx context.Context) *inspection {
	known := s.readClock(ctx)
	for _, step := range []func(context.Context){s.readInfo, s.readConfig, s.checkRights} {
		if s.err == nil {
			step(ctx)
		}
	}
	if len(s.info) > 0 {
		s.checkKind()
		s.checkVersion()
		s.checkMemory()
		s.checkPersistence()
		s.checkReplication()
	}
	s.checkActiveActive()
	s.checkConfig()
	if s.err == nil && known {
		s.checkClock(ctx)
	}
	return s
}

func (s *inspection) find(code idemcheck.FindingCode, severity idemcheck.Severity, advice, detail string, args ...any) {
	s.findings = append(s.findings, idemcheck.Finding{
		Code: code, Severity: severity, Server: s.address, Advice: advice, Detail: fmt.Sprintf(detail, args...),
	})
}

// ask sends commands in one pipeline. What the server says is in them; ok is false when it could
// not be asked.
func (s *inspection) ask(ctx context.Context, cmds ...redis.Cmder) (ok bool) {
	if ctx.Err() != nil { // the client would send them all the same
		s.err = cause(ctx)
		return false
	}
	pipe := s.client.Pipeline()
	for _, cmd := range cmds {
		_ = pipe.Process(ctx, cmd) // queues it
	}
	_, _ = pipe.Exec(ctx)
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && !replied(err) {
			s.err = err
			return false
		}
	}
	return true
}

// replied reports whether err is the server's word, and not that of the client or the network.
func replied(err error) bool {
	var said redis.Error
	return errors.As(err, &said)
}

// notChecked finds that the server refuses to tell something.
func (s *inspection) notChecked(command, right, what string, refusal error) {
	advice := "See to it yourself"
	if redis.HasErrorPrefix(refusal, "NOPERM") {
		advice = fmt.Sprintf("Give the user %s, or see to it yourself", right)
	}
	s.find(idemcheck.FindingNotChecked, idemcheck.SeverityNotice, advice,
		"%s is refused (%s), so Check says nothing about %s", command, strings.TrimSuffix(rediserr.Text(refusal), "."), what)
}

func (s *inspection) readInfo(ctx context.Context) {
	cmd := redis.NewStringCmd(ctx, "info")
	if !s.ask(ctx, cmd) {
		return
	}
	if cmd.Err() != nil {
		s.notChecked("INFO", "+info", "version, eviction, persistence and replication", cmd.Err())
		return
	}
	s.info = make(map[string]string)
	for line := range strings.Lines(cmd.Val()) {
		if field, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			s.info[field] = value
		}
	}
}

// readConfig asks for parameters one by one: a pattern that has them all has passwords as well.
func (s *inspection) readConfig(ctx context.Context) {
	var cmds []redis.Cmder
	for _, parameter := range []string{"save", "appendfsync", "client-output-buffer-limit", "cluster-node-timeout", "active-replica"} {
		cmds = append(cmds, redis.NewMapStringStringCmd(ctx, "config", "get", parameter))
	}
	if !s.ask(ctx, cmds...) {
		return
	}
	s.config = make(map[string]string)
	for _, cmd := range cmds {
		if cmd.Err() != nil {
			s.notChecked("CONFIG GET", "+config|get (which shows the server's passwords, too)",
				"save, appendfsync, client-output-buffer-limit, cluster-node-timeout and KeyDB's active-replica", cmd.Err())
			return
		}
		maps.Copy(s.config, cmd.(*redis.MapStringStringCmd).Val())
	}
}

func (s *inspection) inCluster() bool { return s.info["cluster_enabled"] == "1" }

// mode is "standalone", "sentinel" or "cluster". Valkey calls it server_mode unless it imitates Redis.
func (s *inspection) mode() string { return cmp.Or(s.info["server_mode"], s.info["redis_mode"]) }

// checkActiveActive finds a KeyDB that accepts writes that its peers accept as well. INFO says so only
// while it has a peer, CONFIG GET always.
func (s *inspection) checkActiveActive() {
	if s.info["role"] != "active-replica" && s.config["active-replica"] != "yes" {
		return
	}
	s.find(idemcheck.FindingActiveActive, idemcheck.SeverityUnsafe, "Set active-replica no, and use one master with replicas",
		"active-replica is on: two masters grant the same claim, so fn runs twice")
}

func (s *inspection) checkKind() {
	_, single := s.core.Servers.Client.(*redis.Client)
	switch {
	case s.mode() == "sentinel":
		s.find(idemcheck.FindingWrongClient, idemcheck.SeverityUnsafe, "Use redis.NewFailoverClient, with this address among its SentinelAddrs",
			"the server is a Sentinel, which stores nothing")
	case single && s.inCluster():
		s.find(idemcheck.FindingWrongClient, idemcheck.SeverityUnsafe, "Use redis.NewClusterClient",
			"the server is a node of a Cluster and the client is for a single server, so the names of other nodes are refused")
	case s.info["role"] == "slave":
		s.replica()
	}
}

func (s *inspection) replica() {
	s.find(idemcheck.FindingReplica, idemcheck.SeverityUnsafe, "Connect to the master, through Sentinel if it may change; after a failover, check again",
		"the server is a replica: it refuses claims and outcomes or, with replica-read-only off, loses them")
}

// Versions, as major * 100 + minor.
const (
	versionOfEffects   = 500 // scripts are replicated by what they did, not run again elsewhere
	versionOfClaim     = 700 // SET takes NX and GET together; sharded pub/sub
	upgradeAdvice      = "Upgrade to Redis 7.0 or later, or Valkey"
	effectsExplanation = "scripts run again on replicas and when the append-only file is loaded, and may decide differently there"
)

func (s *inspection) checkVersion() {
	if s.info["valkey_version"] != "" { // redis_version is then the version of Redis that it imitates
		return
	}
	told := s.info["redis_version"]
	major, rest, _ := strings.Cut(told, ".")
	minor, _, _ := strings.Cut(rest, ".")
	x, err := strconv.Atoi(major)
	y, minorErr := strconv.Atoi(minor)
	if err != nil || minorErr != nil {
		return
	}
	switch version := 100*x + y; {
	case version < versionOfEffects:
		s.find(idemcheck.FindingOldVersion, idemcheck.SeverityUnsafe, upgradeAdvice, "the version is %s: before 5.0, %s", told, effectsExplanation)
	case version < versionOfClaim && s.core.Sharded:
		s.find(idemcheck.FindingOldVersion, idemcheck.SeverityUnsafe, upgradeAdvice,
			"the version is %s: a Cluster has sharded pub/sub, without which no outcome is recorded, from 7.0 on", told)
	case version < versionOfClaim:
		s.find(idemcheck.FindingOldVersion, idemcheck.SeverityWarning, upgradeAdvice,
			"the version is %s: before 7.0, SET does not take NX and GET together, so operations are claimed by the script claim.lua, which is not tested on such servers", told)
	}
}

func (s *inspection) checkMemory() {
	policy, known := s.info["maxmemory_policy"]
	if !known || policy == "noeviction" {
		return
	}
	victims := "any record"
	if strings.HasPrefix(policy, "volatile-") {
		victims = "keys with an expiry, which every record has,"
	}
	const advice = "Set maxmemory-policy noeviction, and keep caches on another server"
	if s.info["maxmemory"] == "0" {
		s.find(idemcheck.FindingEviction, idemcheck.SeverityWarning, advice,
			"maxmemory-policy is %s, which evicts %s as soon as a maxmemory is set", policy, victims)
		return
	}
	s.find(idemcheck.FindingEviction, idemcheck.SeverityUnsafe, advice,
		"maxmemory-policy is %s, which evicts %s when memory is full, and what is evicted runs again; %s keys were evicted so far", policy, victims, cmp.Or(s.info["evicted_keys"], "unknown"))
}

// replicas counts those that are in step with the master.
func (s *inspection) replicas() (n int) {
	for i := 0; ; i++ {
		replica, there := s.info["slave"+strconv.Itoa(i)]
		switch {
		case !there:
			return n
		case strings.Contains(replica, "state=online"):
			n++
		}
	}
}

func (s *inspection) checkPersistence() {
	aof, known := s.info["aof_enabled"]
	if !known {
		return
	}
	const advice = "Set appendonly yes, unless the provider of the server keeps its data in another way"
	save, saveKnown := s.config["save"]
	switch {
	case aof == "1":
	case saveKnown && save == "" && s.replicas() == 0:
		s.find(idemcheck.FindingNoPersistence, idemcheck.SeverityUnsafe, advice,
			"neither append-only file nor snapshots, and no replica: a restart forgets every outcome")
	case saveKnown && save == "":
		s.find(idemcheck.FindingNoPersistence, idemcheck.SeverityWarning, advice,
			"neither append-only file nor snapshots: a master that restarts before a replica is promoted comes back empty, and the replicas with it")
	default:
		s.find(idemcheck.FindingNoAppendOnly, idemcheck.SeverityWarning, advice,
			"no append-only file: a crash loses what came since the last snapshot, %s changes so far", cmp.Or(s.info["rdb_changes_since_last_save"], "unknown"))
	}
	for _, field := range []string{"aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"} {
		if status, known := s.info[field]; known && status != "ok" {
			s.find(idemcheck.FindingPersistenceFails, idemcheck.SeverityWarning, "Look into the server's log: usually the disk is full or may not be written",
				"%s is %s", field, status)
		}
	}
}

// checkReplication looks for what a failover would lose. A Cluster's master stops by itself when
// it is cut off.
func (s *inspection) checkReplication() {
	if s.info["role"] != "master" {
		return
	}
	have, want := s.replicas(), s.core.Replicas
	if have < want {
		s.find(idemcheck.FindingFewReplicas, idemcheck.SeverityUnsafe, "Bring replicas up, or lower n of WithReplicaAck",
			"WithReplicaAck waits for %d replicas, and %d are in step with this master: every claim is given up", want, have)
	}
	_, bounded := s.info["min_slaves_good_slaves"] // told only when a minimum is set
	if have == 0 || want > 0 || bounded || s.inCluster() {
		return
	}
	s.find(idemcheck.FindingCutOffMaster, idemcheck.SeverityWarning, "Set min-replicas-to-write 1 and min-replicas-max-lag 10",
		"min-replicas-to-write is 0: a master that is cut off from its replicas goes on recording outcomes, which are lost when one of them is promoted")
}

func (s *inspection) checkConfig() {
	switch fsync := s.config["appendfsync"]; {
	case s.info["aof_enabled"] != "1" || fsync == "" || fsync == "always":
	case fsync == "no":
		s.find(idemcheck.FindingFsync, idemcheck.SeverityWarning, "Set appendfsync always, or everysec",
			"appendfsync is no: a crash of the machine loses what the kernel had not written, usually the last 30 s")
	default:
		s.find(idemcheck.FindingFsync, idemcheck.SeverityNotice, "Set appendfsync always if that is too much to lose; it costs a disk write for each outcome",
			"appendfsync is %s: a crash of the machine may lose the last second of outcomes", fsync)
	}
	if hard, limit := pubsubLimit(s.config["client-output-buffer-limit"]), s.core.MessageLimit; hard > 0 && hard < limit {
		s.find(idemcheck.FindingPubSubBuffer, idemcheck.SeverityWarning, "Raise client-output-buffer-limit pubsub, or lower WithMessageLimit",
			"client-output-buffer-limit cuts off subscribers at %d bytes, and a message may have %d: those who wait for a large outcome are cut off and have to read it", hard, limit)
	}
	timeout, err := strconv.Atoi(s.config["cluster-node-timeout"])
	if failover := time.Duration(timeout) * time.Millisecond; err == nil && s.inCluster() && failover >= s.core.Lease {
		s.find(idemcheck.FindingShortLease, idemcheck.SeverityWarning, "Set WithLease to a few seconds more than cluster-node-timeout, or lower the latter",
			"a failover takes more than cluster-node-timeout, %v, and the lease is %v: whatever runs meanwhile on a failed master's slots is cancelled and runs again, as attempt 2", failover, s.core.Lease)
	}
}

// pubsubLimit finds the hard limit, 0 for none, in "normal 0 0 0 pubsub 33554432 8388608 60".
func pubsubLimit(limits string) int {
	_, rest, _ := strings.Cut(limits, "pubsub ")
	hard, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(hard)
	if err != nil {
		return 0
	}
	return n
}
