package checkup

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/idemcheck"
	"github.com/idempotent-go/idempotent/internal/rediserr"
)

// A right is a command of an executor, in a form that changes nothing, also where it is allowed.
type right struct {
	args     []any
	acl      string // the rule that gives it
	severity idemcheck.Severity
	without  string
}

// An unusable script, so that EVALSHA never finds it.
const noScript = "0000000000000000000000000000000000000000"

const everythingFails = "executions or operations of this library fail without it"

// rights are those of docs/redis.md. s.name is no operation's: nothing is stored there, and nobody
// listens.
func (s *inspection) rights() []right {
	name := s.name
	plain := []right{
		{[]any{"get", name}, "+get", idemcheck.SeverityUnsafe, everythingFails},
		{[]any{"getrange", name, 0, 0}, "+getrange", idemcheck.SeverityUnsafe, everythingFails},
		{[]any{"set", name, "", "nx", "xx", "get"}, "+set", idemcheck.SeverityUnsafe, everythingFails}, // NX and XX: a syntax error
		{[]any{"del", name}, "+del", idemcheck.SeverityUnsafe, everythingFails},
		{[]any{"pttl", name}, "+pttl", idemcheck.SeverityUnsafe, everythingFails},
		{[]any{"pexpire", name, 1}, "+pexpire", idemcheck.SeverityUnsafe, everythingFails},
		{[]any{"eval", "return 0", 1, name}, "+eval", idemcheck.SeverityUnsafe, everythingFails},
		{[]any{"evalsha", noScript, 1, name}, "+evalsha", idemcheck.SeverityUnsafe, everythingFails},
		{[]any{"ping"}, "+ping", idemcheck.SeverityWarning, "a subscription that is silent for 3 s is made anew, and a Ring takes the server for dead"},
	}
	if s.core.Replicas > 0 {
		plain = append(plain, right{[]any{"wait", 0, 0}, "+wait", idemcheck.SeverityUnsafe, "WithReplicaAck cannot work without it"})
	}
	if s.core.Sharded {
		return append(plain,
			right{[]any{"spublish", name, "G"}, "+spublish", idemcheck.SeverityUnsafe, everythingFails},
			right{[]any{"publish", name, "G"}, "+publish", idemcheck.SeverityUnsafe, "Forget and Resolve fail, which tell those who cache"},
			right{[]any{"command", "count"}, "+command", idemcheck.SeverityNotice, "go-redis asks each time how to route commands, and goes on without"})
	}
	return append(plain, right{[]any{"publish", name, "G"}, "+publish", idemcheck.SeverityUnsafe, everythingFails})
}

// subscriptions are the rights that cannot be tried on a connection of the pool.
func (s *inspection) subscriptions() (subscribe, unsubscribe right) {
	prefix := ""
	if s.core.Sharded {
		prefix = "s"
	}
	subscribe = right{[]any{prefix + "subscribe", s.own}, "+" + prefix + "subscribe", idemcheck.SeverityWarning, "waiters poll"}
	unsubscribe = right{[]any{prefix + "unsubscribe", s.own}, "+" + prefix + "unsubscribe", idemcheck.SeverityWarning, "the subscription connection is made anew each time a channel is dropped"}
	return subscribe, unsubscribe
}

// checkRights asks the server what the user may do or, where that is not allowed, tries it. A
// write is tried in any case: it shows whether writes are taken at all.
func (s *inspection) checkRights(ctx context.Context) {
	write := redis.NewCmd(ctx, "set", s.own, "", "nx", "xx", "get")
	who := redis.NewStringCmd(ctx, "acl", "whoami")
	if !s.ask(ctx, write, who) {
		return
	}
	s.checkWrite(write.Err())
	subscribe, unsubscribe := s.subscriptions()
	if who.Err() == nil {
		all := append(s.rights(), subscribe, unsubscribe)
		if s.cachesOnCluster() {
			all = append(all, s.cacheSubscription())
		}
		if s.dryRun(ctx, who.Val(), all) || s.err != nil {
			return
		}
	}
	var denied denials
	s.tryAll(ctx, &denied)
	if s.err == nil {
		s.trySubscription(ctx, subscribe, unsubscribe, &denied)
	}
	if s.err == nil && s.cachesOnCluster() {
		s.tryCacheSubscription(ctx, &denied)
	}
	denied.report(s)
}

// refusals are the ways in which a server refuses writes, and what to do about them.
var refusals = map[string]string{
	"OOM":         "Give the server more memory; until then claims are refused",
	"MISCONF":     "Look into the server's log for why it cannot write to its disk",
	"NOREPLICAS":  "Bring the replicas back that min-replicas-to-write asks for",
	"LOADING":     "Wait until the server has loaded its data, then check again",
	"CLUSTERDOWN": "Bring the missing masters of the Cluster back",
	"BUSY":        "A script of somebody else runs for too long; end it with SCRIPT KILL",
}

func (s *inspection) checkWrite(err error) {
	if redis.HasErrorPrefix(err, "READONLY") {
		if s.info["role"] != "slave" { // else INFO has said so
			s.replica()
		}
		return
	}
	for code, advice := range refusals {
		if redis.HasErrorPrefix(err, code) {
			s.find(idemcheck.FindingWritesRefused, idemcheck.SeverityUnsafe, advice, "writes are refused: %s", strings.TrimSuffix(rediserr.Text(err), "."))
		}
	}
}

// dryRun asks about all rights. done is false when the user may not ask, the server is too old, or it
// does not know one of the commands.
func (s *inspection) dryRun(ctx context.Context, user string, all []right) (done bool) {
	cmds := make([]redis.Cmder, len(all))
	for i, r := range all {
		cmds[i] = redis.NewStringCmd(ctx, append([]any{"acl", "dryrun", user}, r.args...)...)
	}
	if !s.ask(ctx, cmds...) {
		return false
	}
	for _, cmd := range cmds {
		if cmd.Err() != nil {
			return false
		}
	}
	var denied denials
	for i, cmd := range cmds {
		if verdict := cmd.(*redis.StringCmd).Val(); verdict != "OK" {
			denied.add(s, all[i], verdict)
		}
	}
	denied.report(s)
	return true
}

func (s *inspection) tryAll(ctx context.Context, denied *denials) {
	all := s.rights()
	cmds := make([]redis.Cmder, len(all))
	for i, r := range all {
		cmds[i] = redis.NewCmd(ctx, r.args...)
	}
	if !s.ask(ctx, cmds...) {
		return
	}
	for i, cmd := range cmds {
		if refused(cmd.Err()) {
			denied.add(s, all[i], rediserr.Text(cmd.Err()))
		}
	}
}

// refused reports whether the server would not even begin with a command. Everything else that
// it can answer comes after the user's rights.
func refused(err error) bool {
	return redis.HasErrorPrefix(err, "NOPERM") || redis.HasErrorPrefix(err, "unknown command")
}

// trySubscription subscribes and unsubscribes on a connection of its own.
func (s *inspection) trySubscription(ctx context.Context, subscribe, unsubscribe right, denied *denials) {
	var ps *redis.PubSub
	var end func(context.Context, ...string) error
	if s.core.Sharded {
		ps = s.client.SSubscribe(ctx, s.own)
		end = ps.SUnsubscribe
	} else {
		ps = s.client.Subscribe(ctx, s.own)
		end = ps.Unsubscribe
	}
	defer ps.Close()
	if !s.awaitReply(ctx, ps, subscribe, denied) {
		return
	}
	if err := end(ctx, s.own); err != nil {
		s.err = err
		return
	}
	s.awaitReply(ctx, ps, unsubscribe, denied)
}

// cachesOnCluster reports whether there is a subscription that is not sharded beside those that are.
func (s *inspection) cachesOnCluster() bool {
	return s.core.Cached && s.core.Sharded
}

func (s *inspection) cacheSubscription() right {
	return right{[]any{"subscribe", s.own}, "+subscribe", idemcheck.SeverityWarning, "the replay cache stays empty"}
}

func (s *inspection) tryCacheSubscription(ctx context.Context, denied *denials) {
	ps := s.client.Subscribe(ctx, s.own)
	defer ps.Close()
	s.awaitReply(ctx, ps, s.cacheSubscription(), denied)
}

// heard waits for the answer to a command that needs r. ok is false when none came.
func (s *inspection) awaitReply(ctx context.Context, ps *redis.PubSub, r right, denied *denials) (ok bool) {
	for {
		answer, err := ps.ReceiveTimeout(ctx, subscriptionTimeout)
		_, message := answer.(*redis.Message) // of somebody else's Check
		switch {
		case refused(err):
			denied.add(s, r, rediserr.Text(err))
		case err != nil && !replied(err):
			s.err = err
		case message:
			continue
		}
		return s.err == nil
	}
}

const subscriptionTimeout = 5 * time.Second

// denials collects what concerns all commands alike: names and channels.
type denials struct{ keys, channels []string }

// add finds a missing command at once.
func (d *denials) add(s *inspection, r right, verdict string) {
	command := strings.ToUpper(r.args[0].(string))
	switch {
	case strings.HasSuffix(verdict, " key") || strings.Contains(verdict, "one of the keys"):
		d.keys = append(d.keys, command)
	case strings.HasSuffix(verdict, " channel") || strings.Contains(verdict, "one of the channels"):
		d.channels = append(d.channels, command)
	default:
		s.find(idemcheck.FindingMissingCommand, r.severity, aclAdvice(r.acl), "%s is refused (%s): %s", command, verdict, r.without)
	}
}

func (d *denials) report(s *inspection) {
	if len(d.keys) > 0 {
		s.find(idemcheck.FindingMissingKeys, idemcheck.SeverityUnsafe, aclAdvice("~"+s.name+"*"),
			"%s: the user may not use the names %s*", strings.Join(d.keys, ", "), s.name)
	}
	if len(d.channels) > 0 {
		s.find(idemcheck.FindingMissingChannels, idemcheck.SeverityUnsafe, aclAdvice("&"+s.name+"*"),
			"%s: the user may not use the channels %s*", strings.Join(d.channels, ", "), s.name)
	}
}

func aclAdvice(rule string) string {
	return fmt.Sprintf("Add %s to the user (ACL SETUSER), see docs/redis.md", rule)
}
