package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/backoff"
	"github.com/idempotent-go/idempotent/internal/pipeline"
	"github.com/idempotent-go/idempotent/internal/rediserr"
)

// An Ack says how many replicas must have a write before it counts; none by default.
type Ack struct {
	Replicas int
	Timeout  time.Duration
}

func (a Ack) queue(ctx context.Context, pipe redis.Pipeliner) *redis.IntCmd {
	wait := redis.NewIntCmd(ctx, "wait", a.Replicas, a.Timeout.Milliseconds())
	_ = pipe.Process(ctx, wait) // sent by Exec
	return wait
}

// check turns the reply to WAIT into an error if too few replicas answered.
func (a Ack) check(wait *redis.IntCmd) error {
	n, err := wait.Result()
	if err == nil && int(n) < a.Replicas {
		return fmt.Errorf("%w: %d of %d within %v", ErrFewReplicas, n, a.Replicas, a.Timeout)
	}
	return err
}

// ErrFewReplicas: the write was made, and may be lost by a failover.
var ErrFewReplicas = errors.New("too few replicas acknowledged the write")

// run is call with WAIT behind the script, if replicas are asked for. The script's own reply is returned
// even if too few of them answered, because what it found counts.
func (s *Store) run(ctx context.Context, script *redis.Script, name string, args ...any) (*redis.Cmd, error) {
	if s.Ack.Replicas == 0 {
		return s.call(ctx, script, name, args...)
	}
	keys := []string{name}
	cmd := redis.NewCmd(ctx) // empty, for a topology that cannot be loaded
	eval := script.EvalSha
	queue := func(pipe redis.Pipeliner) redis.Cmder {
		cmd = eval(ctx, pipe, keys, args...)
		return cmd
	}
	err := s.acknowledged(ctx, name, queue)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		eval = script.Eval
		err = s.acknowledged(ctx, name, queue)
	}
	return cmd, err
}

// acknowledged sends the command that queue makes and WAIT down one connection, since WAIT speaks of the
// writes of its own connection. It follows a Cluster's redirects itself, because go-redis would redirect
// the command without its WAIT. A nil reply is no error.
func (s *Store) acknowledged(ctx context.Context, name string, queue func(redis.Pipeliner) redis.Cmder) (err error) {
	defer rediserr.RecoverTo(&err)
	_, node, err := s.Node(ctx, name)
	if err != nil {
		return err
	}
	pause := backoff.Backoff{First: 20 * time.Millisecond, Limit: 200 * time.Millisecond}
	asking := false
	for attempt := 0; ; attempt++ {
		pipe := node.Pipeline()
		if asking {
			pipe.Do(ctx, "asking")
		}
		cmd := queue(pipe)
		wait := s.Ack.queue(ctx, pipe)
		_, _ = pipe.Exec(ctx) // each command has its own error, and only the first one's says what was written
		if err = cmd.Err(); err == nil || errors.Is(err, redis.Nil) {
			return s.Ack.check(wait)
		}
		if attempt == maxRedirects || !s.elsewhere(err) {
			return err
		}
		if node, asking, err = s.redirected(ctx, name, err, &pause); err != nil {
			return err
		}
	}
}

// maxRedirects bounds how often one command follows a Cluster that changes.
const maxRedirects = 5

// elsewhere reports whether another server of a Cluster may execute what this one did not. For other
// clients, go-redis retries by itself what can be retried.
func (s *Store) elsewhere(err error) bool {
	if s.Cluster == nil || errors.Is(err, redis.ErrClosed) {
		return false
	}
	_, refused := errors.AsType[redis.Error](err)
	_, moved := redis.IsMovedError(err)
	_, ask := redis.IsAskError(err)
	return !refused || moved || ask || redis.IsReadOnlyError(err) || redis.IsClusterDownError(err) || redis.IsTryAgainError(err)
}

// redirected returns the server to try after err.
func (s *Store) redirected(ctx context.Context, name string, err error, pause *backoff.Backoff) (node redis.UniversalClient, asking bool, _ error) {
	addr, asking := redis.IsAskError(err)
	if !asking {
		addr, _ = redis.IsMovedError(err)
	}
	// MOVED may name a server that the client does not know yet, after a failover.
	masters, _ := s.Nodes(ctx) // reloads the topology
	if there := masters[addr]; there != nil {
		return there, asking, nil
	}
	select { // a failover that the Cluster has not agreed on yet takes time
	case <-ctx.Done():
		return nil, false, err
	case <-time.After(pause.Next()):
	}
	_, node, err = s.Node(ctx, name)
	return node, false, err
}

// renewAcknowledged renews leases of one server. A renewal counts once the replicas have it.
func (s *Store) renewAcknowledged(ctx context.Context, batch []Renewal, eval evaluator) {
	_, node, err := s.Node(ctx, batch[0].Name)
	if err != nil {
		for i := range batch {
			batch[i].Err = err
		}
		return
	}
	pipe := node.Pipeline()
	cmds := queueRenewals(ctx, pipe, batch, eval)
	wait := s.Ack.queue(ctx, pipe)
	err = sendAll(ctx, pipe)
	for i := range batch {
		r := &batch[i]
		r.read(cmds[i], pipeline.ReplyError(cmds[i], err))
		switch {
		case r.Err == nil:
			r.Err = s.Ack.check(wait)
		case s.elsewhere(r.Err): // its slot moves: alone, it can follow
			r.read(s.run(ctx, renewScript, r.Name, r.args()...))
		}
	}
}
