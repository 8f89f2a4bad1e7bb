// Package store owns the commands of the protocol: one method for each step, bytes in and bytes out. It
// never decides what a record means for a caller, never waits for another owner, and keeps no state but
// how the server wants to be asked. Every command may be delivered twice, by go-redis or by a caller
// that retries, without harm.
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

// A Message is the first byte of what is published on the channel of a key. A finished record is
// published as it is stored, because a script that puts a letter before it copies it twice.
type Message = byte

const (
	MessageRecord Message = record.Version // a finished record
	MessageShared Message = 'S'            // a finished record follows that is not stored: an ignored error
	MessageFree   Message = 'F'            // the record is gone: claim
	MessageRead   Message = 'G'            // something changed, or the record is too large to publish: read
)

// A Store speaks to Redis for one executor.
type Store struct {
	*topology.Servers
	sender       pipeline.Processor // of claims and commits: the batcher, or the client
	batcher      *pipeline.Batcher  // nil for clients whose commands share no pipelines
	Identity     any                // the client if it can be compared, else nil
	Publish      string             // PUBLISH, or SPUBLISH on Cluster
	MessageLimit int
	Ack          Ack
	CacheChannel string      // the namespace's invalidation channel
	scriptClaim  atomic.Bool // the server is older than 7.0 and refused SET with NX and GET

	publishArg, limitArg any // Publish and MessageLimit boxed once: arguments of each commit
	compare              comparing
}

// New returns a Store. Records larger than messageLimit bytes are not published; waiters read them.
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

// Close returns when no pipeline is in flight. No method may be in flight either.
func (s *Store) Close() {
	s.compare.publishing.Wait()
	if s.batcher != nil {
		s.batcher.Wait()
	}
}

// ClaimArgs is the number of arguments of a claim, for a caller that has the memory for them.
const ClaimArgs = 7

// Send sends cmd through via, or through the default sender if via is nil. The error may be in the
// command alone: an AutoPipeliner that defers returns nil before it has sent anything. A panic of a
// client's hook becomes an error, because the command may have been executed: for a commit, fn was.
func (s *Store) Send(ctx context.Context, via pipeline.Processor, cmd redis.Cmder) (err error) {
	defer rediserr.RecoverTo(&err)
	return s.RefreshOnError(cmp.Or(cmp.Or(via, s.sender).Process(ctx, cmd), cmd.Err()))
}

// call runs a script on the record called name.
func (s *Store) call(ctx context.Context, script *redis.Script, name string, args ...any) (cmd *redis.Cmd, err error) {
	cmd = redis.NewCmd(ctx) //nolint:wastedassign // returned when a hook panics
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

// Claim stores the running record for px ms if there is none, and returns the record found instead, Raw
// nil if the claim was made. withTTL asks for its TTL as well, which takes a script, unless via is set.
// args is memory for the arguments.
func (s *Store) Claim(ctx context.Context, via pipeline.Processor, name string, running []byte, px any, args []any, withTTL bool) (Reading, error) {
	byScript := s.scriptClaim.Load() || withTTL && via == nil
	if s.Ack.Replicas == 0 && !byScript {
		// Raw, because a nil reply is the usual case here and an error to go-redis: it would cost 20 of
		// the 35 allocations of a first run.
		cmd := redis.NewRawCmd(ctx, append(args, "set", name, running, "nx", "get", "px", px)...)
		if err := s.Send(ctx, via, cmd); err != nil {
			return Reading{}, err
		}
		if there, ok := bulk(cmd.Val()); ok {
			return Reading{Raw: there}, nil
		}
		// The reply was an error, which a raw command hides from go-redis. Sent again as an ordinary
		// command, it lets go-redis follow MOVED or wait for LOADING. A claim delivered twice does no
		// harm: the second finds the token of the first.
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

// bulk parses a raw reply, in RESP2 or RESP3: a string, or nil. ok is false for any other reply.
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

// setNX is the claim as an ordinary command, on servers where SET takes NX together with GET.
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
	if there, none := cmd.Bytes(); none == nil && (err == nil || len(there) > 0) { // with an error and no record, the command may not have been sent
		return there, nil
	}
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return nil, err
}

// one is the number of keys of a script.
var one any = 1

// A Renewal is one lease to renew, and its result.
type Renewal struct {
	Name      string
	Token     *record.Token
	TTLMillis int64 // lease + retention, ms

	Mine bool
	Err  error
}

func (r *Renewal) args() []any { return []any{r.Token[:], r.TTLMillis} }

// read takes the reply to the renew script, unless err says that it does not count.
func (r *Renewal) read(cmd *redis.Cmd, err error) {
	n, broken := cmd.Int()
	r.Mine, r.Err = n == 1, broken
	if err != nil {
		r.Err = err
	}
}

// Renew renews many leases in one pipeline. With WithReplicaAck they must all be of one server, since
// WAIT speaks of one connection.
func (s *Store) Renew(ctx context.Context, batch []Renewal) {
	s.renewPipeline(ctx, batch, renewScript.EvalSha)
	var missing []Renewal // the server does not have the script: it restarted, or was promoted
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

// An evaluator sends a script: by its hash, or in full.
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

// TakeOver replaces the record seen by next. If dead is not nil, it does so only if the lease of that
// record is over: if no more than its retention is left of the TTL, by Redis's clock alone. It returns
// the record found instead, empty if there is none. tell publishes next to waiters. Without dead it is
// an operator's change, which caches must hear of too.
func (s *Store) TakeOver(ctx context.Context, name string, seen []byte, next []byte, ttl time.Duration, dead *record.Record, tell bool) (instead []byte, taken bool, err error) {
	limit, keep, lease, cached := -1, int64(-1), int64(0), s.CacheChannel
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

// A Reading is what is stored under a name.
type Reading struct {
	Raw []byte // nil if nothing is
	TTL time.Duration
}

// Read returns the record and its TTL in one round trip.
func (s *Store) Read(ctx context.Context, name string) (Reading, error) {
	return readingOf(s.call(ctx, readScript, name))
}

// readingOf parses the reply of a script: a record and its PTTL, or nil. A record counts even if err
// says that too few replicas acknowledged; that nothing is stored counts only as the server's own word.
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

// HeadOf returns the first bytes of a record: version, kind and token. Scripts compare these.
func HeadOf(raw []byte) []byte { return raw[:min(len(raw), record.HeadSize)] }

// newBatcher returns nil for clients that speak to several servers, since a pipeline to several waits
// for the slowest, and for those whose commands end with their contexts.
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
