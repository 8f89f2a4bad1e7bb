package idempotent

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/*.lua
var luaFiles embed.FS

var (
	claimScript    = loadScript("claim")
	renewScript    = loadScript("renew")
	commitSource   = luaSource("commit")
	commitScript   = redis.NewScript(commitSource)
	releaseScript  = loadScript("release")
	takeOverScript = loadScript("takeover")
	forgetSource   = luaSource("forget")
	forgetScript   = redis.NewScript(forgetSource)
	readScript     = loadScript("read")
)

func luaSource(name string) string {
	src, err := luaFiles.ReadFile("lua/" + name + ".lua")
	if err != nil { // embedded at build time
		panic(err)
	}
	return string(src)
}

func loadScript(name string) *redis.Script { return redis.NewScript(luaSource(name)) }

// What a message on an operation's channel begins with.
const (
	messageRecord = 'R' // a finished record follows
	messageShared = 'S' // a finished record follows that is not stored: an ignored error, shared
	messageFree   = 'F' // the record is gone: claim
	messageRead   = 'G' // something changed: read
)

// store speaks to Redis: one method for each step of the protocol, bytes in and bytes out. All
// of them may be repeated, by go-redis or by us, without harm.
type store struct {
	client  redis.UniversalClient
	sender  processor // of claims and commits: the client, or the batcher
	batcher *batcher  // nil if they are always sent alone
	servers
	identity     any    // the client if it can be compared, else nil
	publish      string // PUBLISH, or SPUBLISH on Cluster
	messageLimit int
	ack          replicaAck
	cacheChannel string      // where those who cache are told what is forgotten
	scriptClaim  atomic.Bool // the server refused SET with NX and GET

	publishArg, limitArg any // publish and messageLimit as arguments of each commit
}

func newStore(client redis.UniversalClient, cfg *config) *store {
	s := &store{client: client, servers: serversOf(client), publish: "PUBLISH", messageLimit: cfg.messageLimit, ack: cfg.ack}
	if reflect.ValueOf(client).Comparable() {
		s.identity = client
	}
	if s.cluster != nil {
		s.publish = "SPUBLISH"
	}
	s.sender = client
	if s.batcher = s.newBatcher(); s.batcher != nil {
		s.sender = s.batcher
	}
	s.publishArg, s.limitArg = s.publish, s.messageLimit
	return s
}

// close returns when nothing is being sent. No run may be under way.
func (s *store) close() {
	if s.batcher != nil {
		s.batcher.sending.Wait()
	}
}

// claimArgs is how many arguments a claim has.
const claimArgs = 7

// A processor sends one command and returns when its reply is there.
type processor interface {
	Process(ctx context.Context, cmd redis.Cmder) error
}

// send sends a command by way of via or, if that is nil, as commands are usually sent. An
// AutoPipeliner that defers says only in the command how that went. A hook of the client that panics
// is an error like others, since the command may have been executed, and fn was if it is a commit.
func (s *store) send(ctx context.Context, via processor, cmd redis.Cmder) (err error) {
	defer survive(&err)
	return s.heed(cmp.Or(cmp.Or(via, s.sender).Process(ctx, cmd), cmd.Err()))
}

// call runs a script for the name.
func (s *store) call(ctx context.Context, script *redis.Script, name string, args ...any) (cmd *redis.Cmd, err error) {
	cmd = redis.NewCmd(ctx)
	defer survive(&err)
	cmd = script.Run(ctx, s.client, []string{name}, args...)
	return cmd, s.heed(cmd.Err())
}

// sendAll sends what is in a pipeline.
func sendAll(ctx context.Context, pipe redis.Pipeliner) (err error) {
	defer survive(&err)
	_, err = pipe.Exec(ctx)
	return err
}

// survive makes an error of a panic.
func survive(err *error) {
	if v := recover(); v != nil {
		*err = hookPanic(v)
	}
}

// hookPanic is the error of a command whose hook panicked. It is none of those that Redis could have
// answered, whatever the hook panicked with.
func hookPanic(v any) error { return fmt.Errorf("panic: %v", v) }

// claim stores the running record, for px ms, if there is none. It returns the record that is
// there, nil if the claim was made; with its TTL, which takes a script, if that is asked for and via
// is nil. args is room for the arguments.
func (s *store) claim(ctx context.Context, via processor, name string, running []byte, px any, args []any, withTTL bool) (reading, error) {
	byScript := s.scriptClaim.Load() || withTTL && via == nil
	if s.ack.replicas == 0 && !byScript {
		// A nil reply is an error to go-redis, and a costly one; here it is the usual case.
		cmd := redis.NewRawCmd(ctx, append(args, "set", name, running, "nx", "get", "px", px)...)
		if err := s.send(ctx, via, cmd); err != nil {
			return reading{}, err
		}
		if there, ok := bulk(cmd.Val()); ok {
			return reading{raw: there}, nil
		}
		// A raw reply hides an error from go-redis, which follows MOVED, waits for LOADING and the
		// like; the same claim again does no harm, since it knows its own token.
	}
	if !byScript {
		there, err := s.setNX(ctx, name, running, px)
		if err == nil || !strings.HasPrefix(err.Error(), "ERR syntax error") {
			return reading{raw: there}, err
		}
		s.scriptClaim.Store(true)
	}
	return readingOf(s.run(ctx, claimScript, name, running, px))
}

// bulk reads a raw reply: a string, or nil.
func bulk(raw []byte) (value []byte, ok bool) {
	line, rest, _ := bytes.Cut(raw, []byte("\r\n"))
	switch {
	case len(line) == 0:
		return nil, false
	case line[0] == '_', string(line) == "$-1":
		return nil, true
	case line[0] != '$' || len(rest) < 2:
		return nil, false
	}
	return rest[: len(rest)-2 : len(rest)-2], true
}

// setNX is the claim where SET takes NX together with GET.
func (s *store) setNX(ctx context.Context, name string, running []byte, px any) ([]byte, error) {
	cmd := redis.NewStringCmd(ctx, "set", name, running, "nx", "get", "px", px)
	var err error
	if s.ack.replicas == 0 {
		err = s.send(ctx, s.client, cmd)
	} else {
		err = s.acknowledged(ctx, name, func(pipe redis.Pipeliner) redis.Cmder {
			_ = pipe.Process(ctx, cmd)
			return cmd
		})
	}
	if there, none := cmd.Bytes(); none == nil && (err == nil || len(there) > 0) { // else it may not have been sent
		return there, nil
	}
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return nil, err
}

// commit stores a finished record and publishes it. stored is false when somebody else's record
// is there.
func (s *store) commit(ctx context.Context, via processor, name string, done []byte, ttl time.Duration) (stored bool, err error) {
	var cmd *redis.Cmd
	if s.ack.replicas > 0 {
		cmd, err = s.run(ctx, commitScript, name, done, ttl.Milliseconds(), s.publish, s.messageLimit)
	} else {
		cmd, err = s.commitVia(ctx, via, "evalsha", commitScript.Hash(), name, done, ttl)
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			cmd, err = s.commitVia(ctx, via, "eval", commitSource, name, done, ttl)
		}
	}
	n, broken := cmd.Int()
	if broken == nil && n == 0 {
		return false, nil
	}
	err = cmp.Or(err, broken) // without an answer, nothing is known to be stored
	return err == nil, err
}

func (s *store) commitVia(ctx context.Context, via processor, verb, script, name string, done []byte, ttl time.Duration) (*redis.Cmd, error) {
	cmd := redis.NewCmd(ctx, verb, script, one, name, done, ttl.Milliseconds(), s.publishArg, s.limitArg)
	cmd.SetFirstKeyPos(3)
	return cmd, s.send(ctx, via, cmd)
}

// one is the number of keys of a script.
var one any = 1

// release gives the operation up: it deletes the record or puts one without an owner in its place.
func (s *store) release(ctx context.Context, name string, t token, message []byte, stays *record) error {
	if len(message) > s.messageLimit && message[0] == messageShared {
		message = []byte{messageRead}
	}
	var raw []byte
	var ttl time.Duration
	if stays != nil {
		raw, ttl = stays.encode(), stays.retention
	}
	_, err := s.call(ctx, releaseScript, name, t[:], s.publish, message, raw, ttl.Milliseconds())
	return err
}

// A renewal is one lease to extend, and how that went.
type renewal struct {
	lease *lease
	mine  bool
	err   error
}

func (r *renewal) args() []any {
	return []any{r.lease.token[:], (r.lease.duration + r.lease.retention).Milliseconds()}
}

// read takes the answer of the renew script, unless err says that it does not count.
func (r *renewal) read(cmd *redis.Cmd, err error) {
	n, broken := cmd.Int()
	r.mine, r.err = n == 1, broken
	if err != nil {
		r.err = err
	}
}

// renew extends many leases in one pipeline. With WithReplicaAck they are all of one server.
func (s *store) renew(ctx context.Context, batch []renewal) {
	s.renewPipeline(ctx, batch, renewScript.EvalSha)
	var missing []renewal
	for _, r := range batch {
		if redis.HasErrorPrefix(r.err, "NOSCRIPT") {
			missing = append(missing, r)
		}
	}
	if len(missing) == 0 {
		return
	}
	s.renewPipeline(ctx, missing, renewScript.Eval)
	for i := range batch {
		if redis.HasErrorPrefix(batch[i].err, "NOSCRIPT") {
			batch[i], missing = missing[0], missing[1:]
		}
	}
}

// An evaluator is how a script is sent: by its hash or in full.
type evaluator func(context.Context, redis.Scripter, []string, ...any) *redis.Cmd

func (s *store) renewPipeline(ctx context.Context, batch []renewal, eval evaluator) {
	if s.ack.replicas > 0 {
		s.renewAcknowledged(ctx, batch, eval)
		return
	}
	pipe := s.client.Pipeline()
	cmds := queueRenewals(ctx, pipe, batch, eval)
	err := sendAll(ctx, pipe)
	for i, cmd := range cmds {
		batch[i].read(cmd, s.heed(errorIn(cmd, err)))
	}
}

func queueRenewals(ctx context.Context, pipe redis.Pipeliner, batch []renewal, eval evaluator) []*redis.Cmd {
	cmds := make([]*redis.Cmd, len(batch))
	for i, r := range batch {
		cmds[i] = eval(ctx, pipe, []string{r.lease.name}, r.args()...)
	}
	return cmds
}

// takeOver puts next in the place of the record seen. With retention at or above zero it does so
// only when that record's lease is over. It returns the record that is there instead, nil if
// next is stored.
func (s *store) takeOver(ctx context.Context, name string, seen []byte, next []byte, ttl, retention time.Duration, tell bool) (instead []byte, taken bool, err error) {
	limit, keep, cached := -1, int64(-1), s.cacheChannel // what is put there by hand concerns them too
	if tell {
		limit = s.messageLimit
	}
	if retention >= 0 {
		keep, cached = retention.Milliseconds(), ""
	}
	cmd, err := s.run(ctx, takeOverScript, name,
		headOf(seen), next, ttl.Milliseconds(), keep, s.publish, limit, cached)
	if there, ok := cmd.Val().(string); ok {
		return []byte(there), false, nil
	}
	return nil, err == nil, err
}

// A reading is what is stored under a name.
type reading struct {
	raw []byte // nil if nothing is
	ttl time.Duration
}

// read returns the record and its TTL, in one round trip.
func (s *store) read(ctx context.Context, name string) (reading, error) {
	return readingOf(s.call(ctx, readScript, name))
}

// readingOf is what a script answers: a record and its PTTL, or nil. What is there counts, whatever
// else err says; that nothing is does not.
func readingOf(cmd *redis.Cmd, err error) (reading, error) {
	reply, broken := cmd.Slice()
	switch {
	case errors.Is(broken, redis.Nil) && (err == nil || errors.Is(err, redis.Nil)):
		return reading{}, nil
	case broken != nil && err != nil:
		return reading{}, err
	case broken != nil:
		return reading{}, broken
	}
	if len(reply) != 2 {
		return reading{}, fmt.Errorf("a script answered %d values, not 2", len(reply))
	}
	raw, there := reply[0].(string)
	if !there {
		return reading{}, nil
	}
	left, _ := reply[1].(int64)
	return reading{raw: []byte(raw), ttl: time.Duration(left) * time.Millisecond}, nil
}

// forget deletes the record that was seen, of which head is the beginning, and tells the waiters, and
// those who cache. It returns the head of the record that was there: another one stays. With strange
// it deletes whatever is there. It is sent once, and may arrive late.
func (s *store) forget(ctx context.Context, name string, head []byte, strange bool) (there []byte, err error) {
	send := func(verb, script string) (*redis.Cmd, error) {
		cmd := redis.NewCmd(ctx, verb, script, one, name, s.publish, []byte{messageFree}, s.cacheChannel, head, strange)
		cmd.SetFirstKeyPos(3)
		return cmd, s.send(ctx, s.client, sentOnce{cmd})
	}
	cmd, err := send("evalsha", forgetScript.Hash())
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		cmd, err = send("eval", forgetSource)
	}
	text, broken := cmd.Text()
	return []byte(text), cmp.Or(err, broken)
}

// sentOnce is a command that go-redis does not send again when it has no reply.
type sentOnce struct{ *redis.Cmd }

func (sentOnce) NoRetry() bool { return true }

// headOf is the beginning of a record by which scripts know it.
func headOf(raw []byte) []byte { return raw[:min(len(raw), headSize)] }

// wrongType reports whether err says that the name holds something else than a string, so that
// nothing was written.
func wrongType(err error) bool { return err != nil && strings.Contains(err.Error(), "WRONGTYPE") }
