package idemhttp

import (
	"errors"
	"fmt"
	"time"
)

// Defaults of the transport's options.
const (
	DefaultMaxAttempts    = 6
	DefaultMaxElapsedTime = time.Minute
	DefaultFirstBackoff   = 500 * time.Millisecond
	DefaultMaxBackoff     = 10 * time.Second
)

// A TransportOption configures a Transport; NewTransport takes it.
type TransportOption func(*transportConfig)

type transportConfig struct {
	maxAttempts  int
	maxElapsed   time.Duration
	firstBackoff time.Duration
	maxBackoff   time.Duration
}

func defaultTransportConfig() transportConfig {
	return transportConfig{
		maxAttempts:  DefaultMaxAttempts,
		maxElapsed:   DefaultMaxElapsedTime,
		firstBackoff: DefaultFirstBackoff,
		maxBackoff:   DefaultMaxBackoff,
	}
}

// WithMaxAttempts sets how often a request is sent at most, the first time included: 6 by default.
func WithMaxAttempts(n int) TransportOption {
	return func(c *transportConfig) { c.maxAttempts = n }
}

// WithMaxElapsedTime sets when the last attempt may begin, counted from the first: 1 min by
// default. An attempt itself is bounded by the request's context alone.
func WithMaxElapsedTime(d time.Duration) TransportOption {
	return func(c *transportConfig) { c.maxElapsed = d }
}

// WithBackoff sets the pause after the first attempt and the longest one, 500 ms and 10 s by
// default. Pauses double, each with up to a half more or less, and are never shorter than a
// Retry-After.
func WithBackoff(first, longest time.Duration) TransportOption {
	return func(c *transportConfig) { c.firstBackoff, c.maxBackoff = first, longest }
}

func (c *transportConfig) validate() error {
	var errs []error
	if c.maxAttempts < 1 {
		errs = append(errs, invalid("WithMaxAttempts", "attempts", fmt.Sprint(c.maxAttempts), "1 or more"))
	}
	if c.maxElapsed <= 0 {
		errs = append(errs, invalid("WithMaxElapsedTime", "time", c.maxElapsed.String(), "more than 0"))
	}
	if c.firstBackoff <= 0 || c.maxBackoff < c.firstBackoff {
		errs = append(errs, invalid("WithBackoff", "pauses", fmt.Sprintf("%v and %v", c.firstBackoff, c.maxBackoff), "the first more than 0, the longest no shorter"))
	}
	return errors.Join(errs...)
}
