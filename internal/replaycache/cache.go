// Package replaycache owns finished records in memory and the knowledge whether they may still be served.
// It never reads a record from Redis and never decodes one: callers store what they found.
package replaycache

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/store"
)

const (
	// maxCachedSize is the largest record, in bytes, that is kept: a cache is bounded by its entries.
	maxCachedSize = 64 << 10

	// clockTolerance is the part of a TTL by which the clocks of Redis and of this process may
	// differ at its end: a thousandth, twice what NTP slews.
	clockTolerance = 1000
)

// A Cache holds finished records in this process. They do not change; they end by their expiry, which is
// counted here, and by Forget and Resolve, which the link receives. Nothing is served unless the link is
// verified to deliver. All methods of a nil Cache do nothing.
type Cache struct {
	entries int
	logger  *slog.Logger
	born    time.Time
	link    *link
	current atomic.Pointer[generation] // nil while the link does not stand
}

// A generation is what was cached during one session of the link. It ends with the session, so nothing
// outlives a gap in the invalidations.
type generation struct {
	records       *otter.Cache[string, *cachedRecord]
	verifiedUntil atomic.Pointer[instant] // until when the link is known to have told everything

	mu      sync.Mutex // held to store and to forget, not to find
	changes uint64     // how often something was forgotten
}

type cachedRecord struct {
	rec *record.Record
	end instant
}

// An instant is a time by two clocks: the monotonic one stands still while the machine is suspended,
// and the wall clock can be set back.
type instant struct{ monotonic, wall time.Duration }

func (m instant) add(d time.Duration) instant { return instant{m.monotonic + d, m.wall + d} }

// before reports whether m is before end by both clocks.
func (m instant) before(end instant) bool { return m.monotonic < end.monotonic && m.wall < end.wall }

// New returns a cache of up to entries records. It subscribes to the invalidations of s when first used.
func New(entries int, s *store.Store, logger *slog.Logger) *Cache {
	c := &Cache{entries: entries, logger: logger, born: time.Now()}
	c.link = newLink(c, s)
	return c
}

func (c *Cache) now() instant {
	t := time.Now()
	return instant{monotonic: t.Sub(c.born), wall: time.Duration(t.UnixNano())}
}

// begin starts a generation: what is read from now on can be stored.
func (c *Cache) begin() *generation {
	g := &generation{records: otter.Must(&otter.Options[string, *cachedRecord]{
		MaximumSize: c.entries,
		Executor:    func(maintain func()) { maintain() }, // no goroutines
		Logger:      cacheLogger{c.logger},
	})}
	c.current.Store(g)
	return g
}

// end drops everything.
func (c *Cache) end() { c.current.Store(nil) }

// Close ends the cache's subscription.
func (c *Cache) Close() {
	if c != nil {
		c.link.close()
	}
}

// Get returns the record of a key, nil if it is unknown or may have been forgotten. The record is shared
// and must not be changed.
func (c *Cache) Get(key string) *record.Record {
	if c == nil {
		return nil
	}
	g := c.current.Load()
	if g == nil {
		return nil
	}
	now, proven := c.now(), g.verifiedUntil.Load()
	if proven == nil || !now.before(*proven) {
		return nil
	}
	found, ok := g.records.GetIfPresent(key)
	if !ok || !now.before(found.end) {
		return nil
	}
	return found.rec
}

// A Stamp is taken before Redis is asked. A record is cached only if no key was invalidated since. The
// zero Stamp never allows caching.
type Stamp struct {
	generation *generation
	changes    uint64
	taken      instant
}

// Stamp returns the state of the cache before a read or write in Redis; it connects the cache if need be.
func (c *Cache) Stamp() Stamp {
	if c == nil {
		return Stamp{}
	}
	c.link.start()
	g := c.current.Load()
	if g == nil {
		return Stamp{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return Stamp{generation: g, changes: g.changes, taken: c.now()}
}

// Valid reports whether m was taken while the subscription delivered.
func (m Stamp) Valid() bool { return m.generation != nil }

// Store caches a record of size bytes, found after the Stamp was taken, which was to live for ttl then. If
// anything was invalidated since, it could be this very record, so it is not stored.
func (m Stamp) Store(key string, rec *record.Record, size int, ttl time.Duration) {
	life := ttl - ttl/clockTolerance - time.Millisecond
	if !m.Valid() || rec.Kind != record.KindDone || rec.Outcome == record.OutcomeInterrupted || rec.Outcome == record.OutcomeValueNotKept || size > maxCachedSize || life <= 0 {
		return
	}
	kept := &cachedRecord{rec: rec, end: m.taken.add(life)}
	g := m.generation
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.changes == m.changes {
		g.records.Set(strings.Clone(key), kept)
	}
}

// Invalidate drops a key, and keeps reads in flight from bringing it back.
func (c *Cache) Invalidate(key string) {
	if c == nil {
		return
	}
	if g := c.current.Load(); g != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.changes++
		g.records.Invalidate(key)
	}
}

// cacheLogger gives the cache's own troubles to the executor's logger.
type cacheLogger struct{ *slog.Logger }

func (l cacheLogger) Warn(ctx context.Context, msg string, err error) {
	l.WarnContext(ctx, "idempotent: replay cache: "+msg, "error", err)
}

func (l cacheLogger) Error(ctx context.Context, msg string, err error) {
	l.ErrorContext(ctx, "idempotent: replay cache: "+msg, "error", err)
}
