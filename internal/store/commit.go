package store

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/pipeline"
)

// A Commit is one outcome to store.
type Commit struct {
	Name    string
	Running []byte // the record that the claim stored; nil if the commit must be the script
	Done    []byte
	TTL     time.Duration
}

// Commit stores a finished record and publishes it. stored is false if another owner's record is there:
// the token in the record fences the commit. With an error, whether it was stored is unknown.
//
// Where the server has SET with IFEQ (Valkey 8.1, Redis 8.4), that stores the record for a tenth of the
// script's CPU. Only its plain success counts. The script answers everything else: a repeated delivery,
// a take-over, a record that has expired. The message goes out once the record is known to be stored, so
// that a waiter never gets the outcome of an owner that was refused.
func (s *Store) Commit(ctx context.Context, via pipeline.Processor, c *Commit) (stored bool, err error) {
	// WAIT needs the write and itself on one connection, which the script's path takes care of.
	compared := c.Running != nil && s.Ack.Replicas == 0 && s.compare.wanted()
	if compared && s.commitCompared(ctx, via, c) {
		s.publishLater(ctx, c)
		return true, nil
	}
	stored, err = s.commitByScript(ctx, via, c)
	if compared && stored { // the comparison may have stored it, without a message, and lost its reply
		s.publishLater(ctx, c)
	}
	return stored, err
}

// compareAfter is how many commits an executor makes before it tries SET with IFEQ. A server without it
// refuses one command, once; an executor with few commits would not gain that back.
const compareAfter = 100

// comparing is what a Store knows of SET with IFEQ, and the messages that follow it.
type comparing struct {
	commits    atomic.Int64
	missing    atomic.Bool // a server refused it
	publishing sync.WaitGroup
}

func (c *comparing) wanted() bool {
	return !c.missing.Load() && (c.commits.Load() >= compareAfter || c.commits.Add(1) >= compareAfter)
}

// commitCompared reports whether the outcome is known to have replaced the owner's running record.
func (s *Store) commitCompared(ctx context.Context, via pipeline.Processor, c *Commit) bool {
	cmd := redis.NewStatusCmd(ctx, "set", c.Name, c.Done, "ifeq", c.Running, "px", c.TTL.Milliseconds())
	err := s.Send(ctx, via, cmd)
	// The whole argument is refused, so that nothing was stored.
	if redis.HasErrorPrefix(err, "syntax error") || redis.HasErrorPrefix(err, "ERR syntax error") {
		s.compare.missing.Store(true)
	}
	return err == nil && cmd.Val() == "OK"
}

// publishLater tells the waiters without keeping the caller. A message that is lost costs a waiter time:
// it reads at the end of the lease.
func (s *Store) publishLater(ctx context.Context, c *Commit) {
	message := c.Done
	if len(message) > s.MessageLimit {
		message = []byte{MessageRead}
	}
	cmd := redis.NewIntCmd(ctx, s.Publish, c.Name, message)
	s.compare.publishing.Go(func() { _ = s.Send(ctx, nil, cmd) })
}

func (s *Store) commitByScript(ctx context.Context, via pipeline.Processor, c *Commit) (stored bool, err error) {
	var cmd *redis.Cmd
	if s.Ack.Replicas > 0 {
		cmd, err = s.run(ctx, commitScript, c.Name, c.Done, c.TTL.Milliseconds(), s.Publish, s.MessageLimit)
	} else {
		cmd, err = s.commitVia(ctx, via, "evalsha", commitScript.Hash(), c)
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			cmd, err = s.commitVia(ctx, via, "eval", commitSource, c)
		}
	}
	n, broken := cmd.Int()
	if broken == nil && n == 0 { // the script's own word, which no error behind it changes
		return false, nil
	}
	err = cmp.Or(err, broken) // only the number 1 says that it is stored
	return err == nil, err
}

// commitVia sends the script as one command that can share a pipeline, which redis.Script cannot.
func (s *Store) commitVia(ctx context.Context, via pipeline.Processor, verb, script string, c *Commit) (*redis.Cmd, error) {
	cmd := redis.NewCmd(ctx, verb, script, one, c.Name, c.Done, c.TTL.Milliseconds(), s.publishArg, s.limitArg)
	cmd.SetFirstKeyPos(3)
	return cmd, s.Send(ctx, via, cmd)
}
