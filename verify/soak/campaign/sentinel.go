package campaign

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/idempotent-go/idempotent/internal/redistest"
)

// A sentinelSet is a master with two replicas and three Sentinels.
type sentinelSet struct {
	*redistest.Sentinel
	field *field
}

func launchSentinel(f *field) (servers, error) {
	set, err := redistest.LaunchSentinel("--enable-debug-command", "yes")
	return &sentinelSet{set, f}, err
}

func (s *sentinelSet) addrs() []string                   { return s.Addrs() }
func (s *sentinelSet) master() string                    { return redistest.MasterName }
func (s *sentinelSet) close()                            { s.Close() }
func (s *sentinelSet) settled(ctx context.Context) error { return s.Settled(ctx) }

func (s *sentinelSet) data() (addrs []string) {
	for _, server := range s.Servers {
		addrs = append(addrs, server.Addr())
	}
	return addrs
}

func (s *sentinelSet) masters(ctx context.Context) ([]string, error) {
	m, err := s.Master(ctx)
	if err != nil {
		return nil, err
	}
	return []string{m.Addr()}, nil
}

// acks: both replicas, since Sentinel may choose either, by what it last heard of them.
func (s *sentinelSet) acks() int {
	if s.field.Acks {
		return len(s.Servers) - 1
	}
	return 0
}

func (s *sentinelSet) faults() []fault {
	return append(s.field.commonFaults(lease/2),
		s.field.planned("master killed", s.kill),
		s.field.planned("SENTINEL FAILOVER", s.failover),
		s.field.planned("master stopped", s.stop),
		fault{name: "Sentinel killed", inject: s.killSentinel},
	)
}

const anyMarker = "marker"

func (s *sentinelSet) losing(ctx context.Context, do, done func(master *redistest.Server) error) error {
	ctx = context.WithoutCancel(ctx)
	if err := s.Settled(ctx); err != nil {
		return err
	}
	m, err := s.Master(ctx)
	if err != nil {
		return err
	}
	return s.field.losing(ctx, m.Addr(), len(s.Servers)-1, anyMarker, nil,
		func() error { return do(m) }, func() error { return done(m) })
}

func (s *sentinelSet) kill(ctx context.Context, r *rand.Rand) error {
	var killed *redistest.Server
	err := s.losing(ctx, func(m *redistest.Server) error {
		killed = m
		m.Kill()
		return nil
	}, func(*redistest.Server) error { return nil })
	if err != nil {
		return err
	}
	always := context.WithoutCancel(ctx)
	_, err = s.Promoted(always, killed)
	hold(ctx, upTo(r, lease))
	return errors.Join(err, killed.Run(), s.Settled(always))
}

// failover: the old master takes writes until it is told that it is none any more, and these are
// lost.
func (s *sentinelSet) failover(ctx context.Context, _ *rand.Rand) error {
	always := context.WithoutCancel(ctx)
	var asking sync.WaitGroup
	var failed error
	err := s.losing(ctx, func(*redistest.Server) error {
		asking.Go(func() { _, failed = s.Failover(always) })
		return nil
	}, func(m *redistest.Server) error { return demoted(always, m.Addr()) })
	asking.Wait()
	return errors.Join(err, failed, s.Settled(always))
}

// stop stops the master until another one is in its place. When it goes on, it takes writes until
// it is told.
func (s *sentinelSet) stop(ctx context.Context, _ *rand.Rand) error {
	always := context.WithoutCancel(ctx)
	err := s.losing(ctx, func(m *redistest.Server) error {
		return stopServerUntil(always, m.Addr(), func() error {
			return until(always, "another master", func() (bool, error) {
				now, err := s.Master(always)
				return now != m, err
			})
		})
	}, func(m *redistest.Server) error { return demoted(always, m.Addr()) })
	return errors.Join(err, s.Settled(always))
}

func (s *sentinelSet) killSentinel(ctx context.Context, r *rand.Rand) error {
	one := s.Sentinels[r.IntN(len(s.Sentinels))]
	one.Kill()
	hold(ctx, between(r, lease/2, 2*lease))
	return errors.Join(one.Run(), s.Settled(context.WithoutCancel(ctx)))
}
