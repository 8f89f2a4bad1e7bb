package store

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

	"github.com/idempotent-go/idempotent/internal/pipeline"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/rediserr"
	"github.com/idempotent-go/idempotent/internal/topology"
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
	MessageRecord = 'R' // a finished record follows
	MessageShared = 'S' // a finished record follows that is not stored: an ignored error, shared
	MessageFree   = 'F' // the record is gone: claim
	MessageRead   = 'G' // something changed: read
)

// store speaks to Redis: one method for each step of the protocol, bytes in and bytes out. All
// of them may be repeated, by go-redis or by us, without harm.
type Store struct {
	*topology.Servers
	sender       pipeline.Processor // of claims and commits: the client, or the batcher
	batcher      *pipeline.Batcher  // nil if they are always sent alone
	Identity     any                // the client if it can be compared, else nil
	Publish      string             // PUBLISH, or SPUBLISH on Cluster
	MessageLimit int
	Ack          Ack
	CacheChannel string      // where those who cache are told what is forgotten
	scriptClaim  atomic.Bool // the server refused SET with NX and GET

	publishArg, limitArg any // publish and messageLimit as arguments of each commit
}

func New(client redis.UniversalClient, messageLimit int, ack Ack) *Store {
	s := &Store{Servers: topology.Of(client), Publish: "PUBLISH", MessageLimit: messageLimit, Ack: ack}
	if reflect.ValueOf(client).Comparable() {
		s.Identity = client
	}
	if s.Cluster != nil {
		s.Publish = "SPUBLISH"
	}
	s.sender = client
	if s.batcher = s.newBatcher(); s.batcher != nil {
		s.sender = s.batcher
	}
	s.publishArg, s.limitArg = s.Publish, s.MessageLimit
	return s
}

// close returns when nothing is being sent. No run may be under way.
func (s *Store) Close() {
	if s.batcher != nil {
		s.batcher.Wait()
	}
}

// claimArgs is how many arguments a claim has.
const ClaimArgs = 7

// send sends a command by way of via or, if that is nil, as commands are usually sent. An
// AutoPipeliner that defers says only in the command how that went. A hook of the client that panics
// is an error like others, since the command may have been executed, and fn was if it is a commit.
func (s *Store) Send(ctx context.Context, via pipeline.Processor, cmd redis.Cmder) (err error) {
	defer rediserr.RecoverTo(&err)
	return s.RefreshOnError(cmp.Or(cmp.Or(via, s.sender).Process(ctx, cmd), cmd.Err()))
}

// call runs a script for the name.
func (s *Store) call(ctx context.Context, script *redis.Script, name string, args ...any) (cmd *redis.Cmd, err error) {
	cmd = redis.NewCmd(ctx)
	defer rediserr.RecoverTo(&err)
	cmd = script.Run(ctx, s.Client, []string{name}, args...)
	return cmd, s.RefreshOnError(cmd.Err())
}

// sendAll sends what is in a pipeline.
func sendAll(ctx context.Context, pipe redis.Pipeliner) (err error) {
	defer rediserr.RecoverTo(&err)
	_, err = pipe.Exec(ctx)
	return err
}

// claim stores the running record, for px ms, if there is none. It returns the record that is
// there, nil if the claim was made; with its TTL, which takes a script, if that is asked for and via
// is nil. args is room for the arguments.
func (s *Store) Claim(ctx context.Context, via pipeline.Processor, name string, running []byte, px any, args []any, withTTL bool) (Reading, error) {
	byScript := s.scriptClaim.Load() || withTTL && via == nil
	if s.Ack.Replicas == 0 && !byScript {
		// A nil reply is an error to go-redis, and a costly one; here it is the usual case.
		cmd := redis.NewRawCmd(ctx, append(args, "set", name, running, "nx", "get", "px", px)...)
		if err := s.Send(ctx, via, cmd); err != nil {
			return Reading{}, err
		}
		if there, ok := bulk(cmd.Val()); ok {
			return Reading{Raw: there}, nil
		}
		// A raw reply hides an error from go-redis, which follows MOVED, waits for LOADING and the
		// like; the same claim again does no harm, since it knows its own token.
	}
	if !byScript {
		there, err := s.setNX(ctx, name, running, px)
		if err == nil || !strings.HasPrefix(err.Error(), "ERR syntax error") {
			return Reading{Raw: there}, err
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
func (s *Store) setNX(ctx context.Context, name string, running []byte, px any) ([]byte, error) {
	cmd := redis.NewStringCmd(ctx, "set", name, running, "nx", "get", "px", px)
	var err error
	if s.Ack.Replicas == 0 {
		err = s.Send(ctx, s.Client, cmd)
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
func (s *Store) Commit(ctx context.Context, via pipeline.Processor, name string, done []byte, ttl time.Duration) (stored bool, err error) {
	var cmd *redis.Cmd
	if s.Ack.Replicas > 0 {
		cmd, err = s.run(ctx, commitScript, name, done, ttl.Milliseconds(), s.Publish, s.MessageLimit)
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

func (s *Store) commitVia(ctx context.Context, via pipeline.Processor, verb, script, name string, done []byte, ttl time.Duration) (*redis.Cmd, error) {
	cmd := redis.NewCmd(ctx, verb, script, one, name, done, ttl.Milliseconds(), s.publishArg, s.limitArg)
	cmd.SetFirstKeyPos(3)
	return cmd, s.Send(ctx, via, cmd)
}

// one is the number of keys of a script.
var one any = 1

// A renewal is one lease to extend, and how that went.
type Renewal struct {
	Name      string
	Token     *record.Token
	TTLMillis int64 // lease + retention, ms

	Mine bool
	Err  error
}

func (r *Renewal) args() []any { return []any{r.Token[:], r.TTLMillis} }

// read takes the answer of the renew script, unless err says that it does not count.
func (r *Renewal) read(cmd *redis.Cmd, err error) {
	n, broken := cmd.Int()
	r.Mine, r.Err = n == 1, broken
	if err != nil {
		r.Err = err
	}
}

// renew extends many leases in one pipeline. With WithReplicaAck they are all of one server.
func (s *Store) Renew(ctx context.Context, batch []Renewal) {
	s.renewPipeline(ctx, batch, renewScript.EvalSha)
	var missing []Renewal
	for _, r := range batch {
		if redis.HasErrorPrefix(r.Err, "NOSCRIPT") {
			missing = append(missing, r)
		}
	}
	if len(missing) == 0 {
		return
	}
	s.renewPipeline(ctx, missing, renewScript.Eval)
	for i := range batch {
		if redis.HasErrorPrefix(batch[i].Err, "NOSCRIPT") {
			batch[i], missing = missing[0], missing[1:]
		}
	}
}

// An evaluator is how a script is sent: by its hash or in full.
type evaluator func(context.Context, redis.Scripter, []string, ...any) *redis.Cmd

func (s *Store) renewPipeline(ctx context.Context, batch []Renewal, eval evaluator) {
	if s.Ack.Replicas > 0 {
		s.renewAcknowledged(ctx, batch, eval)
		return
	}
	pipe := s.Client.Pipeline()
	cmds := queueRenewals(ctx, pipe, batch, eval)
	err := sendAll(ctx, pipe)
	for i, cmd := range cmds {
		batch[i].read(cmd, s.RefreshOnError(pipeline.ReplyError(cmd, err)))
	}
}

func queueRenewals(ctx context.Context, pipe redis.Pipeliner, batch []Renewal, eval evaluator) []*redis.Cmd {
	cmds := make([]*redis.Cmd, len(batch))
	for i, r := range batch {
		cmds[i] = eval(ctx, pipe, []string{r.Name}, r.args()...)
	}
	return cmds
}

// TakeOver replaces the record that was seen by next. If dead is not nil, it does so only if that
// record's lease is over. It returns the record found instead, nil if next is stored. tell says whether
// the waiters get next in a message.
func (s *Store) TakeOver(ctx context.Context, name string, seen []byte, next []byte, ttl time.Duration, dead *record.Record, tell bool) (instead []byte, taken bool, err error) {
	limit, keep, lease, cached := -1, int64(-1), int64(0), s.CacheChannel // an operator's result concerns the caches too
	if tell {
		limit = s.MessageLimit
	}
	if dead != nil {
		keep, lease, cached = dead.Retention.Milliseconds(), dead.Lease.Milliseconds(), ""
	}
	cmd, err := s.run(ctx, takeOverScript, name,
		HeadOf(seen), next, ttl.Milliseconds(), keep, s.Publish, limit, cached, lease)
	if there, ok := cmd.Val().(string); ok {
		return []byte(there), false, nil
	}
	return nil, err == nil, err
}

// A reading is what is stored under a name.
type Reading struct {
	Raw []byte // nil if nothing is
	TTL time.Duration
}

// read returns the record and its TTL, in one round trip.
func (s *Store) Read(ctx context.Context, name string) (Reading, error) {
	return readingOf(s.call(ctx, readScript, name))
}

// readingOf is what a script answers: a record and its PTTL, or nil. What is there counts, whatever
// else err says; that nothing is does not.
func readingOf(cmd *redis.Cmd, err error) (Reading, error) {
	reply, broken := cmd.Slice()
	switch {
	case errors.Is(broken, redis.Nil) && (err == nil || errors.Is(err, redis.Nil)):
		return Reading{}, nil
	case broken != nil && err != nil:
		return Reading{}, err
	case broken != nil:
		return Reading{}, broken
	}
	if len(reply) != 2 {
		return Reading{}, fmt.Errorf("a script answered %d values, not 2", len(reply))
	}
	raw, there := reply[0].(string)
	if !there {
		return Reading{}, nil
	}
	left, _ := reply[1].(int64)
	return Reading{Raw: []byte(raw), TTL: time.Duration(left) * time.Millisecond}, nil
}

// forget deletes the record that was seen, of which head is the beginning, and tells the waiters, and
// those who cache. It returns the head of the record that was there: another one stays. With strange
// it deletes whatever is there. It is sent once, and may arrive late.
func (s *Store) Forget(ctx context.Context, name string, head []byte, strange bool) (there []byte, err error) {
	send := func(verb, script string) (*redis.Cmd, error) {
		cmd := redis.NewCmd(ctx, verb, script, one, name, s.Publish, []byte{MessageFree}, s.CacheChannel, head, strange)
		cmd.SetFirstKeyPos(3)
		return cmd, s.Send(ctx, s.Client, sentOnce{cmd})
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
func HeadOf(raw []byte) []byte { return raw[:min(len(raw), record.HeadSize)] }

// newBatcher is for a client that speaks to one server: pipelines to several would wait for the
// slowest. It is nil for others, and for those whose commands end with their contexts.
func (s *Store) newBatcher() *pipeline.Batcher {
	if s.Cluster != nil || s.Ring != nil {
		return nil
	}
	c, ok := s.Client.(interface{ Options() *redis.Options })
	if !ok || c.Options().ContextTimeoutEnabled {
		return nil
	}
	return pipeline.NewBatcher(context.Background(), s.Client, c.Options().PoolSize)
}
