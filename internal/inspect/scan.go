// Package inspect lists the records in Redis without their payloads. It owns the SCAN over every server and the
// pipelines that read metadata.
package inspect

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/topology"
)

// A Scan lists the names of all records or, with a Namespace, of those whose key begins with KeyPrefix.
type Scan struct {
	Client    redis.UniversalClient
	Namespace string // "" for all
	KeyPrefix string
	Batch     int           // names that each SCAN is asked for
	Pause     time.Duration // between two batches
}

// A Found is one name: its first bytes, and not its payload if that is long.
type Found struct {
	Namespace, Key string
	Server         string
	Head           []byte
	Size           int
	TTL            time.Duration // negative without an expiry
}

// All yields what each server has. A server that fails ends the list.
func (s *Scan) All(ctx context.Context) iter.Seq2[Found, error] {
	return func(yield func(Found, error) bool) {
		nodes, err := topology.Of(s.Client).Nodes(ctx)
		if err != nil {
			yield(Found{}, err)
			return
		}
		if nodes == nil {
			s.server(ctx, "", s.Client, yield)
			return
		}
		for address, node := range nodes {
			if !s.server(ctx, address, node, yield) {
				return
			}
		}
	}
}

// server yields what one server has, batch by batch, and reports whether to go on with the next.
func (s *Scan) server(ctx context.Context, address string, client redis.UniversalClient, yield func(Found, error) bool) bool {
	for cursor := uint64(0); ; {
		names, next, err := client.Scan(ctx, cursor, s.pattern(), int64(s.Batch)).Result()
		var batch []Found
		if err == nil {
			batch, err = read(ctx, client, names)
		}
		if err != nil {
			yield(Found{}, err)
			return false
		}
		for _, f := range batch {
			f.Server = address
			if !yield(f, nil) {
				return false
			}
		}
		if cursor = next; cursor == 0 {
			return true
		}
		select {
		case <-ctx.Done():
			yield(Found{}, context.Cause(ctx))
			return false
		case <-time.After(s.Pause):
		}
	}
}

// escaped takes their meaning in MATCH from the characters of a namespace or a key.
var escaped = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

func (s *Scan) pattern() string {
	if s.Namespace == "" {
		return record.KeyPrefix + "*"
	}
	return escaped.Replace(record.Name(s.Namespace, s.KeyPrefix)) + "*"
}

// read reads the metadata of names of one server. Names that have gone, have moved or are no strings are left out.
func read(ctx context.Context, client redis.UniversalClient, names []string) ([]Found, error) {
	type reply struct {
		head *redis.StringCmd
		size *redis.IntCmd
		ttl  *redis.DurationCmd
	}
	if len(names) == 0 {
		return nil, nil
	}
	pipe := client.Pipeline()
	replies := make([]reply, len(names))
	for i, name := range names {
		replies[i] = reply{pipe.GetRange(ctx, name, 0, record.MaxMetadataSize-1), pipe.StrLen(ctx, name), pipe.PTTL(ctx, name)}
	}
	_, failed := pipe.Exec(ctx)
	var batch []Found
	for i, name := range names {
		r := replies[i]
		head, err := r.head.Bytes()
		if err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") && !redis.HasErrorPrefix(err, "MOVED") && !redis.HasErrorPrefix(err, "ASK") {
			return nil, failed
		}
		if err != nil || len(head) == 0 {
			continue
		}
		f := Found{Head: head, Size: int(r.size.Val()), TTL: r.ttl.Val()}
		if len(head) < record.MaxMetadataSize { // whole; the size may be that of a record written in between
			f.Size = len(head)
		}
		f.Namespace, f.Key, _ = strings.Cut(strings.TrimPrefix(name, record.KeyPrefix), ":")
		batch = append(batch, f)
	}
	return batch, nil
}
