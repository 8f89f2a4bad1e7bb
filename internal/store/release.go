package store

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/pipeline"
	"github.com/idempotent-go/idempotent/internal/record"
)

// A Release is one key to give up, and the result of that.
type Release struct {
	Name    string
	Token   record.Token
	Message []byte         // for the waiters
	Stays   *record.Record // replaces the owner's record; nil deletes it

	Owned bool // the record was the owner's
	Err   error
}

func (s *Store) releaseArgs(r *Release) []any {
	// A shared error that is too large for a message is not shared: it is stored nowhere.
	message := r.Message
	if len(message) > s.MessageLimit && message[0] == MessageShared {
		message = []byte{MessageRead}
	}
	var raw []byte
	var ttl time.Duration
	if r.Stays != nil {
		raw, ttl = r.Stays.Encode(), r.Stays.Retention
	}
	return []any{r.Token[:], s.Publish, message, raw, ttl.Milliseconds()}
}

func (r *Release) read(cmd *redis.Cmd, err error) {
	n, broken := cmd.Int() // 0 is no error: the record was gone already, or is another owner's
	r.Owned, r.Err = n == 1, broken
	if err != nil {
		r.Err = err
	}
}

// Release gives one key up: it deletes the owner's record, or replaces it by one without an owner.
// It changes nothing when the record is not the owner's.
func (s *Store) Release(ctx context.Context, r *Release) error {
	r.read(s.call(ctx, releaseScript, r.Name, s.releaseArgs(r)...))
	return r.Err
}

// ReleaseMany gives many keys up in one pipeline. They should belong to one server, since a pipeline
// takes as long as its slowest server.
func (s *Store) ReleaseMany(ctx context.Context, batch []*Release) {
	s.releasePipeline(ctx, batch, releaseScript.EvalSha)
	// A server that restarted, or was promoted, does not know the script by its hash.
	var missing []*Release
	for _, r := range batch {
		if redis.HasErrorPrefix(r.Err, "NOSCRIPT") {
			missing = append(missing, r)
		}
	}
	if len(missing) > 0 {
		s.releasePipeline(ctx, missing, releaseScript.Eval)
	}
}

func (s *Store) releasePipeline(ctx context.Context, batch []*Release, eval evaluator) {
	pipe := s.Client.Pipeline()
	cmds := make([]*redis.Cmd, len(batch))
	for i, r := range batch {
		cmds[i] = eval(ctx, pipe, []string{r.Name}, s.releaseArgs(r)...)
	}
	err := sendAll(ctx, pipe)
	for i, r := range batch {
		r.read(cmds[i], s.RefreshOnError(pipeline.ReplyError(cmds[i], err)))
	}
}
