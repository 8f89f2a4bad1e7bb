package idemhttp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
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
	bare         bool
	hosts        []string
	hostsSet     bool
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

// WithBareKeys sends keys without quotes, for servers that want them so. By default a key is a
// structured-field String, as the draft has it. A key that the caller sets is sent as it is.
func WithBareKeys() TransportOption {
	return func(c *transportConfig) { c.bare = true }
}

// WithHosts sets the hosts that honour keys; requests to all others pass untouched and are sent once. A
// host is a name or address, with a port to mean that one only; "*.example.com" is every name below
// example.com. By default all hosts get keys.
func WithHosts(hosts ...string) TransportOption {
	return func(c *transportConfig) {
		c.hosts, c.hostsSet = nil, true
		for _, host := range hosts {
			c.hosts = append(c.hosts, strings.ToLower(host))
		}
	}
}

// matchesHost reports whether a host of WithHosts means that of a URL, given without and with port.
func matchesHost(host, name, nameAndPort string) bool {
	name, nameAndPort = strings.ToLower(name), strings.ToLower(nameAndPort)
	if suffix, wild := strings.CutPrefix(host, "*"); wild {
		return strings.HasSuffix(name, suffix) && name != suffix
	}
	return host == name || host == nameAndPort || host == "["+name+"]"
}

func (c *transportConfig) validate() error {
	var errs []error
	if c.hostsSet && len(c.hosts) == 0 {
		errs = append(errs, invalid("WithHosts", "list", "empty", "one host or more"))
	}
	for _, host := range c.hosts {
		suffix, wild := strings.CutPrefix(host, "*")
		if suffix == "" || strings.ContainsAny(suffix, "*/@ ") || wild && !strings.HasPrefix(suffix, ".") {
			errs = append(errs, invalid("WithHosts", "host", strconv.Quote(host), `a host such as "api.example.com", "127.0.0.1:8080" or "*.example.com"`))
		}
	}
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
