// Package inspect reads the records in Redis without their payloads. It owns the SCAN over every server, the
// pipelines that read metadata, and the advice about a right that the client's user lacks. It writes nothing.
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
		if err != nil {
			yield(Found{}, err)
			return false
		}
		for len(names) > 0 { // a server may answer with more names than it is asked for
			part := names[:min(len(names), s.Batch)]
			names = names[len(part):]
			batch, err := readBatch(ctx, client, part)
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
