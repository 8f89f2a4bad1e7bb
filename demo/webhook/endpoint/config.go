package endpoint

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

// A Config says how an Endpoint works. All of it must be set; Defaults is a beginning.
type Config struct {
	Namespace string // keeps endpoints apart that share a Redis
	Providers []Provider
	LedgerURL string

	// AnswerWithin is how long Redis may take to store an event. After that the provider is told
	// to come again.
	AnswerWithin time.Duration
	// Keep is how long an event and its outcome are remembered. It must outlast the last delivery
	// of the same event.
	Keep time.Duration
	// Backlog is how many events may be waiting, failing or dead before new ones are refused.
	Backlog int

	Workers        int           // events handled at once
	HandlerTimeout time.Duration // for one execution
	Attempts       int           // executions before an event is dead
	Backoff        Backoff
	Lease          time.Duration // how long a dead process can block an event
	Stale          time.Duration // when an event that was taken and not settled is given out again
	Wake           time.Duration // how often somebody looks what is stale or due

	Logger *slog.Logger
}

// Defaults are for a provider that delivers again for three days, and by hand for 30.
func Defaults() Config {
	return Config{
		Namespace:      "webhook",
		AnswerWithin:   80 * time.Millisecond,
		Keep:           31 * 24 * time.Hour,
		Backlog:        100_000,
		Workers:        8,
		HandlerTimeout: 30 * time.Second,
		Attempts:       8,
		Backoff:        Backoff{Base: 2 * time.Second, Limit: 15 * time.Minute},
		Lease:          10 * time.Second,
		Stale:          time.Minute,
		Wake:           time.Second,
		Logger:         slog.New(slog.DiscardHandler),
	}
}

// minSecret is the shortest secret that is taken for one.
const minSecret = 16

// check refuses what would let forged events in, lose events, or never end.
func (c *Config) check() error {
	var errs []error
	require := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	require(len(c.Providers) > 0, "there is no provider")
	for _, p := range c.Providers {
		// With an empty secret everybody can compute a valid signature.
		require(len(p.Secret) >= minSecret, "provider %q has no signing secret of at least %d characters", p.Name, minSecret)
		require(p.Name != "" && p.Key != nil, "a provider has no name or no key")
	}
	require(c.LedgerURL != "", "there is no ledger")
	require(c.Namespace != "", "there is no namespace")
	for name, d := range map[string]time.Duration{
		"AnswerWithin": c.AnswerWithin, "Keep": c.Keep, "HandlerTimeout": c.HandlerTimeout, "Lease": c.Lease,
		"Stale": c.Stale, "Wake": c.Wake, "Backoff.Base": c.Backoff.Base, "Backoff.Limit": c.Backoff.Limit,
	} {
		require(d >= time.Millisecond, "%s is %v and must be at least 1 ms", name, d)
	}
	require(c.Workers > 0 && c.Attempts > 0 && c.Backlog > 0, "Workers, Attempts and Backlog must be above 0")
	require(c.Logger != nil, "there is no logger")
	return errors.Join(errs...)
}

// A Backoff is how long to wait after a failure: Base, then twice as long each time up to Limit.
// The upper half of it is left to chance, so that what failed together does not come back together.
type Backoff struct{ Base, Limit time.Duration }

// After returns the pause after that many failures.
func (b Backoff) After(failures int) time.Duration {
	d := b.Base
	for i := 1; i < failures && d < b.Limit; i++ {
		d *= 2
	}
	d = min(d, b.Limit)
	return d/2 + rand.N(d/2+1)
}
