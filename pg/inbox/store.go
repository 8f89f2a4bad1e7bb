package inbox

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/idempotent-go/idempotent/webhook"
)

// DefaultIdleTimeout is the default of WithIdleTimeout.
const DefaultIdleTimeout = 2 * time.Minute

// maxIdleTimeout is the largest timeout that Postgres has: 2^31 ms.
const maxIdleTimeout = 24 * 24 * time.Hour

// commitTimeout bounds each statement that is sent also for a caller that has left, and the search for the outcome of a
// lost COMMIT.
const commitTimeout = 10 * time.Second

// A Store is a webhook.Store on Postgres. It is one lane. A pool needs a connection for each worker of the Inbox, and some
// for intake.
type Store struct {
	pool      *pgxpool.Pool
	namespace string
	idle      string // milliseconds
	takes     atomic.Uint64
	process   string // part of each token
	bodies    atomic.Int64
	room      room

	mu   sync.Mutex
	open map[string]*execution // by token: transactions that Settle is to commit
}

var _ webhook.Store = (*Store)(nil)

// An Option configures a Store.
type Option func(*Store) error

// WithIdleTimeout sets the longest time that a handler may spend between two statements of its transaction: 1 ms or more,
// 2 minutes by default. When it is over, Postgres ends the session and rolls back, so that a paused process cannot hold row
// locks for longer. It must be longer than what a handler does without the database, such as a call to a provider.
func WithIdleTimeout(d time.Duration) Option {
	return func(s *Store) error {
		if d < time.Millisecond || d > maxIdleTimeout {
			return fmt.Errorf("inbox: WithIdleTimeout: timeout is %v; allowed: 1ms or more, up to 24 days", d)
		}
		s.idle = strconv.FormatInt(d.Milliseconds(), 10)
		return nil
	}
}

var namespacePattern = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,48}$`)

// New returns a Store on a pool, which stays the caller's. It sends nothing to Postgres. namespace keeps inboxes apart that
// share a database: 1 to 48 of the characters A-Z a-z 0-9 . _ / and -.
func New(pool *pgxpool.Pool, namespace string, opts ...Option) (*Store, error) {
	s := &Store{
		pool: pool, namespace: namespace, process: rand.Text(), open: map[string]*execution{},
		idle: strconv.FormatInt(DefaultIdleTimeout.Milliseconds(), 10),
	}
	var errs []error
	if pool == nil {
		errs = append(errs, errors.New("inbox: New: pool is nil; allowed: a pool"))
	}
	if !namespacePattern.MatchString(namespace) {
		errs = append(errs, fmt.Errorf("inbox: New: namespace is %q; allowed: %v", namespace, namespacePattern))
	}
	for i, o := range opts {
		if o == nil {
			errs = append(errs, fmt.Errorf("inbox: New: option %d is nil; allowed: an Option", i))
			continue
		}
		errs = append(errs, o(s))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// hash is how a text of a source is looked up, also one that Postgres's text cannot hold.
func hash(source, text string) []byte {
	sum := sha256.Sum256([]byte(strconv.Itoa(len(source)) + ":" + source + text))
	return sum[:16]
}

// objectOf returns the hash of an object, nil for none.
func objectOf(source, object string) []byte {
	if object == "" {
		return nil
	}
	return hash(source, object)
}

// lockID names the advisory lock of a run by 64 bits of a hash. It differs from those of package pg: a namespace has no
// space.
func (s *Store) lockID(key string) int64 {
	sum := sha256.Sum256([]byte("inbox " + s.namespace + ":" + key))
	return int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // all 64 bits are the name, whatever its sign
}

// newToken differs between any two calls of Take.
func (s *Store) newToken() string { return s.process + "-" + strconv.FormatUint(s.takes.Add(1), 36) }

// detached returns a context for what is to be done also for a caller that has left.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
}

// failed names the call that an error of Postgres ended.
func failed(method string, err error) error { return fmt.Errorf("inbox: %s: %w", method, err) }
