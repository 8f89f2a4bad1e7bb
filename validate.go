package idempotent

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/topology"
)

func validateConfig(c *config, client redis.UniversalClient) error {
	var errs []error
	if client == nil || isNil(reflect.ValueOf(client)) {
		errs = append(errs, invalid("New", "client", "nil", "a go-redis client"))
	} else if problem, allowed := topology.Unsupported(client); problem != "" {
		errs = append(errs, invalid("New", "client", problem, allowed))
	}
	if !namespacePattern.MatchString(c.namespace) {
		errs = append(errs, invalid("New", "namespace", fmt.Sprintf("%q", c.namespace), namespacePattern.String()))
	}
	if c.lease < MinLease || c.lease > MaxDuration {
		errs = append(errs, invalid("WithLease", "lease", c.lease.String(), "10ms or more, up to MaxDuration"))
	}
	if c.messageLimit < 0 {
		errs = append(errs, invalid("WithMessageLimit", "limit", fmt.Sprint(c.messageLimit), "0 or more bytes"))
	}
	errs = append(errs, validateAck(c, client))
	if c.cached && c.cacheEntries < 1 {
		errs = append(errs, invalid("WithReplayCache", "entries", fmt.Sprint(c.cacheEntries), "1 or more"))
	}
	if c.cached && !topology.CanSubscribe(client) {
		errs = append(errs, invalid("WithReplayCache", "client", fmt.Sprintf("a %T, which does not say which servers it spreads keys over", client), "one that has ForEachShard, or does not spread keys"))
	}
	if c.logger == nil {
		errs = append(errs, invalid("WithLogger", "logger", "nil", "a logger"))
	}
	for _, o := range c.observers {
		if isNil(reflect.ValueOf(o)) {
			errs = append(errs, invalid("WithObserver", "observer", "nil", "an observer"))
		}
	}
	if !ownerPattern.MatchString(c.owner) {
		errs = append(errs, invalid("WithOwner", "name", fmt.Sprintf("%.70q", c.owner), ownerPattern.String()))
	}
	if c.errors == nil {
		errs = append(errs, invalid("WithErrors", "registry", "nil", "a registry"))
	} else if c.errors.err != nil {
		errs = append(errs, c.errors.err)
	}
	if c.run.report != nil {
		errs = append(errs, invalid("WithReport", "report", "given to New", "given to Run"))
	}
	for _, name := range c.twice {
		errs = append(errs, invalid("New", name, "given twice", "once"))
	}
	errs = append(errs, validateRun(&c.run))
	return errors.Join(errs...)
}

func validateAck(c *config, client redis.UniversalClient) error {
	if !c.ackSet {
		return nil
	}
	var errs []error
	if c.ack.Replicas < 1 {
		errs = append(errs, invalid("WithReplicaAck", "n", fmt.Sprint(c.ack.Replicas), "1 or more"))
	}
	if limit := c.lease / 3; c.ack.Timeout < time.Millisecond || c.ack.Timeout > limit {
		errs = append(errs, invalid("WithReplicaAck", "timeout", c.ack.Timeout.String(), fmt.Sprintf("1ms or more, up to a third of the lease, %v", limit)))
	}
	if limit := readTimeout(client); limit > 0 && c.ack.Timeout >= limit {
		errs = append(errs, invalid("WithReplicaAck", "timeout", c.ack.Timeout.String(), fmt.Sprintf("less than the client's ReadTimeout, %v", limit)))
	}
	return errors.Join(errs...)
}

// readTimeout is how long the client waits for a reply; 0 if that cannot be known.
func readTimeout(client redis.UniversalClient) time.Duration {
	if client == nil || isNil(reflect.ValueOf(client)) {
		return 0
	}
	switch c := client.(type) {
	case interface{ Options() *redis.Options }:
		return c.Options().ReadTimeout
	case interface{ Options() *redis.ClusterOptions }:
		return c.Options().ReadTimeout
	case interface{ Options() *redis.RingOptions }:
		return c.Options().ReadTimeout
	}
	return 0
}

func validateRun(c *runConfig) error {
	var errs []error
	if c.ttl < time.Millisecond || c.ttl > MaxDuration {
		errs = append(errs, invalid("WithTTL", "ttl", c.ttl.String(), "1ms or more, up to MaxDuration"))
	}
	if c.errorTTLSet && (c.errorTTL < time.Millisecond || c.errorTTL > MaxDuration) {
		errs = append(errs, invalid("WithErrorTTL", "ttl", c.errorTTL.String(), "1ms or more, up to MaxDuration"))
	}
	if c.waitTimeout <= 0 {
		errs = append(errs, invalid("WithWaitTimeout", "timeout", c.waitTimeout.String(), "more than 0; WithNoWait does not wait at all"))
	}
	if c.ignored > ShareWithWaiters {
		errs = append(errs, invalid("WithIgnoredErrors", "policy", fmt.Sprint(c.ignored), "NextWaiterRuns or ShareWithWaiters"))
	}
	if c.interrupted > Refuse {
		errs = append(errs, invalid("WithInterrupted", "policy", fmt.Sprint(c.interrupted), "Rerun or Refuse"))
	}
	if c.commitWaitSet && c.commitWait <= 0 {
		errs = append(errs, invalid("WithCommitWait", "wait", c.commitWait.String(), "more than 0"))
	}
	if c.nilUnknown {
		errs = append(errs, invalid("WithUnknownErrors", "function", "nil", "a function"))
	}
	if c.report == nilReport {
		errs = append(errs, invalid("WithReport", "report", "nil", "a Report to fill in"))
	}
	return errors.Join(errs...)
}

// typed takes a codec or hooks out of a config, if they are for the executor's T.
func typed[V any](option string, value any, fallback V, allowed string) (V, error) {
	if value == nil {
		return fallback, nil
	}
	v, ok := value.(V)
	if !ok {
		given := fmt.Sprintf("a %T", value)
		if boxed, ok := value.(interface{ given() string }); ok {
			given = boxed.given()
		}
		return fallback, invalid(option, "argument", given, "a "+allowed)
	}
	return v, nil
}
