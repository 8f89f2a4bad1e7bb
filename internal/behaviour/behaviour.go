// Package behaviour is what an executor must do with every server and every client: one suite, for
// tests that bring the clients. Only tests import it.
package behaviour

import (
	"testing"

	"github.com/redis/go-redis/v9"
)

// Run runs the suite as subtests of t and returns when they are done. one and two are clients of
// the same servers, such as two processes have; the same client twice will do. What the suite
// stores has namespaces of its own, different in every run, and expires within ten minutes. It
// sends nothing but what an executor sends, so it also runs as a user with an executor's rights.
func Run(t *testing.T, one, two redis.UniversalClient) {
	t.Helper()
	t.Run("behaviour", func(t *testing.T) { // parallel subtests are over when this returns
		for name, test := range cases {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // most of them wait, for a server or a lease
				test(&scene{T: t, one: one, two: two, namespace: newNamespace()})
			})
		}
	})
}

var cases = map[string]func(s *scene){
	"one runs and the others wait":        oneRuns,
	"a storm of callers":                  storm,
	"callers in one process join":         join,
	"leases are renewed":                  renew,
	"values come back as they were":       values,
	"large values reach waiters":          largeValues,
	"keys of any bytes":                   strangeKeys,
	"errors are replayed":                 replayErrors,
	"registered errors come back":         registeredErrors,
	"panics are replayed":                 panics,
	"ignored error, the next waiter runs": ignoredNextRuns,
	"ignored error, shared":               ignoredShared,
	"fingerprints":                        fingerprints,
	"impatient callers":                   impatient,
	"a dead owner is taken over":          takeOver,
	"a late outcome counts":               lateOutcome,
	"a dead owner, refused":               refuseDeadOwner,
	"an unknown outcome, refused":         refuseUnknownOutcome,
	"a caller that leaves":                leave,
	"a detached function goes on":         detached,
	"Forget":                              forget,
	"Forget wakes waiters":                forgetWakes,
	"Resolve":                             resolve,
	"Resolve wakes waiters":               resolveWakes,
	"Peek":                                peek,
	"Get":                                 get,
}
