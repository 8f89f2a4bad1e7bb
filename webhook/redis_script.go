package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/pipeline"
)

// A call is one run of a script.
type call struct {
	script *redis.Script
	keys   []string
	args   []any
}

// run runs scripts in one pipeline, by their hashes, and those that the server does not know once more, by their source.
// Each command has its own error. The error returned is the first one that is no redis.Nil.
func (s *RedisStore) run(ctx context.Context, calls []call) ([]*redis.Cmd, error) {
	cmds := make([]*redis.Cmd, len(calls))
	_, err := s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, c := range calls {
			cmds[i] = c.script.EvalSha(ctx, pipe, c.keys, c.args...)
		}
		return nil
	})
	if err == nil {
		return cmds, nil
	}
	var unknown []int
	for i, cmd := range cmds {
		if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
			unknown = append(unknown, i)
		}
	}
	if len(unknown) > 0 {
		_, _ = s.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error { // each command has its own error
			for _, i := range unknown {
				cmds[i] = calls[i].script.Eval(ctx, pipe, calls[i].keys, calls[i].args...)
			}
			return nil
		})
	}
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return cmds, err
		}
	}
	return cmds, nil
}

// sharedFrom is how many scripts are sent alone at once. Those beyond it share pipelines: at 32 senders, this saves more
// than a tenth of the CPU time of both sides, and half of the 99th percentile.
const sharedFrom = 2

// newBatcher returns nil for clients that speak to several servers, since a pipeline to several waits for the slowest, and
// for those whose commands end with their contexts.
func newBatcher(client redis.UniversalClient) *pipeline.Batcher {
	c, ok := client.(*redis.Client)
	if !ok || c.Options().ContextTimeoutEnabled {
		return nil
	}
	return pipeline.NewBatcher(context.Background(), c, sharedFrom)
}

// runShared runs a script in a pipeline that other callers share.
func (s *RedisStore) runShared(ctx context.Context, c call) *redis.Cmd {
	args := make([]any, 3, 3+len(c.keys)+len(c.args))
	args[0], args[1], args[2] = "evalsha", c.script.Hash(), len(c.keys)
	for _, key := range c.keys {
		args = append(args, key)
	}
	cmd := redis.NewCmd(ctx, append(args, c.args...)...)
	if err := s.batcher.Process(ctx, cmd); err != nil {
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			return c.script.Eval(ctx, s.rdb, c.keys, c.args...)
		}
		cmd.SetErr(err)
	}
	return cmd
}

// A replicaAck is how many replicas must have an event before it counts as accepted; none by default.
type replicaAck struct {
	replicas int
	timeout  time.Duration
}

var errFewReplicas = errors.New("webhook: too few replicas acknowledged the event")

// runAcknowledged runs a script and WAIT on one connection, since WAIT covers the writes of its own connection. On a
// Cluster it follows a slot that moves.
func (s *RedisStore) runAcknowledged(ctx context.Context, c call) (*redis.Cmd, error) {
	const tries = 6
	for try := 1; ; try++ {
		node, err := s.node(ctx, c.keys[0])
		if err != nil {
			return nil, err
		}
		pipe := node.Pipeline()
		cmd := c.script.Eval(ctx, pipe, c.keys, c.args...)
		wait := redis.NewIntCmd(ctx, "wait", s.ack.replicas, s.ack.timeout.Milliseconds())
		_ = pipe.Process(ctx, wait) // sent by Exec
		_, _ = pipe.Exec(ctx)       // each command has its own error
		if err = cmd.Err(); err == nil {
			if n, err := wait.Result(); err != nil || int(n) < s.ack.replicas {
				return nil, errors.Join(fmt.Errorf("%w: %d of %d within %v", errFewReplicas, n, s.ack.replicas, s.ack.timeout), err)
			}
			return cmd, nil
		}
		cluster, _ := s.rdb.(*redis.ClusterClient)
		if cluster == nil || try == tries || ctx.Err() != nil {
			return nil, err
		}
		cluster.ReloadState(ctx)
	}
}

// node returns a client of the server that has a key.
func (s *RedisStore) node(ctx context.Context, key string) (redis.Cmdable, error) {
	if cluster, ok := s.rdb.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, key)
	}
	return s.rdb, nil
}
