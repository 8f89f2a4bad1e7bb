package webhook

import (
	"errors"
	"fmt"
	"regexp"
)

// DefaultMaxBody is the largest body of a source whose provider does not say how large its bodies can be: 1 MiB.
const DefaultMaxBody = 1 << 20

// A Source is a provider whose events an inbox receives at one URL.
type Source struct {
	// Name is the last part of the URL, and a part of each event's key: 1 to 64 of the characters A-Z a-z 0-9 . _ and -.
	Name string
	// Scheme verifies requests. It is required.
	Scheme Scheme
	// Key says which events are one event. The default is ByID.
	Key KeyFunc
	// Describe, if set, fills in what the scheme does not know of an event: its Object for instance. It runs after the
	// signature was verified. An error refuses the request as ReasonBadBody.
	Describe func(e *Event) error
	// Accept, if set, selects the events that are stored. The others are answered with 2xx and forgotten.
	Accept func(e Event) bool
	// Confirm asks the provider about unsigned events. It is required if the provider sends unsigned events.
	Confirm Confirm
	// MaxBody is the largest body, in bytes. The default is the provider's limit, or DefaultMaxBody. A larger one is
	// answered with 413.
	MaxBody int64
}

var sourcePattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// prepare sets defaults, and returns why the source cannot be used.
func (s *Source) prepare() error {
	var errs []error
	if !sourcePattern.MatchString(s.Name) {
		errs = append(errs, fmt.Errorf("webhook: source name is %q; allowed: 1 to 64 of A-Z a-z 0-9 . _ -", s.Name))
	}
	if s.Scheme == nil {
		return errors.Join(append(errs, fmt.Errorf("webhook: source %q: Scheme is nil; allowed: a Scheme", s.Name))...)
	}
	provider := s.Scheme.Provider()
	if provider.SendsUnsigned && s.Confirm == nil {
		errs = append(errs, fmt.Errorf("webhook: source %q: Confirm is nil; allowed: a Confirm, because its provider sends events that are not signed", s.Name))
	}
	if s.MaxBody < 0 {
		errs = append(errs, fmt.Errorf("webhook: source %q: MaxBody is %d; allowed: 0 or more", s.Name, s.MaxBody))
	}
	if s.MaxBody == 0 {
		s.MaxBody = provider.MaxBody
	}
	if s.MaxBody == 0 {
		s.MaxBody = DefaultMaxBody
	}
	if s.Key == nil {
		s.Key = ByID
	}
	return errors.Join(errs...)
}

// key returns the key of an event, without a payload in its error.
func (s *Source) key(e Event) (string, error) {
	key, err := s.Key(s.Name, e)
	if err != nil {
		return "", err
	}
	if len(key) == 0 || len(key) > maxKey {
		return "", fmt.Errorf("webhook: source %q: the key of an event has %d bytes; allowed: 1 to %d", s.Name, len(key), maxKey)
	}
	return key, nil
}
