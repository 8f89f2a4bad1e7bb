package idempotent

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"sync/atomic"

	"github.com/idempotent-go/idempotent/internal/runctx"
)

// MaxKeySize is the longest key, in bytes.
const MaxKeySize = 1024

func checkKey(key string) error {
	if len(key) == 0 || len(key) > MaxKeySize {
		return fmt.Errorf("%w: %d bytes long; allowed: 1 to %d bytes", ErrInvalidKey, len(key), MaxKeySize)
	}
	return nil
}

// HashKey builds a key from parts, for instance a tenant, a route and a request id: the SHA-256,
// in hexadecimal, of the parts with their lengths. No two different lists of parts give the same
// key, so HashKey("a", "bc") and HashKey("ab", "c") differ, and parts may hold any bytes and be
// of any length.
func HashKey(parts ...string) string {
	h := sha256.New()
	var size [binary.MaxVarintLen64]byte
	for _, part := range parts {
		h.Write(binary.AppendUvarint(size[:0], uint64(len(part))))
		h.Write([]byte(part))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// RunInfo describes an execution to the fn that runs it.
type RunInfo struct {
	// Namespace is the executor's.
	Namespace string
	// Key is the key given to Run.
	Key string
	// Attempt is 1 for the first execution. Above 1, an earlier execution ended without an
	// outcome: its process died, its lease ran out or its context was cancelled. What it did is
	// unknown: ask the provider before doing it again.
	Attempt int
}

// DownstreamKey is a key for a provider's own idempotency header, such as Stripe's
// Idempotency-Key. It is 64 hexadecimal digits, and the same for every attempt and in every
// process that runs this key in this namespace.
func (i RunInfo) DownstreamKey() string { return HashKey(i.Namespace, i.Key) }

// RunInfoFromContext returns the RunInfo of the execution that ctx was given to, and whether ctx
// comes from one. With nested runs it is the innermost.
func RunInfoFromContext(ctx context.Context) (RunInfo, bool) {
	x, ok := runctx.Value(ctx, runContextKey{}).(*runContext)
	if !ok {
		return RunInfo{}, false
	}
	return x.info, true
}

// ContextWithActor returns a context that names who asks for a Forget or a Resolve, such as a person who operates the
// service, for the observers' audit. The default is the executor's WithOwner.
func ContextWithActor(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, actorKey{}, name)
}

type actorKey struct{}

type runContextKey struct{}

// An execution is what fn's context knows of the run it belongs to.
type runContext struct {
	info  RunInfo
	by    *keyspace   // nil for an execution of package pg
	outer *runContext // the run whose fn called this one
	over  atomic.Bool
}

// A keyspace is where one executor keeps its operations.
type keyspace struct {
	namespace string
	identity  any // of the Redis, nil if it cannot be known
}

// executing reports whether ctx belongs to an execution of this executor that has not ended, and
// whether to one of this very key.
func (c *keyspace) executing(ctx context.Context, key string) (nested, same bool) {
	x, _ := runctx.Value(ctx, runContextKey{}).(*runContext)
	for ; x != nil; x = x.outer {
		if x.by == nil || x.over.Load() {
			continue
		}
		nested = nested || x.by == c
		same = same || x.info.Key == key && c.equal(x.by)
	}
	return nested, same
}

// equal reports whether both executors keep their operations under the same names in the same Redis.
func (c *keyspace) equal(other *keyspace) bool {
	return c == other || c.namespace == other.namespace && c.identity != nil && c.identity == other.identity
}
