package campaign

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/redistest"
)

// single is one server that loses nothing it acknowledged, also when it is killed: it has an
// append-only file and writes to it before it answers.
type single struct {
	field  *field
	server *redistest.Server
}

func launchSingle(f *field) (servers, error) {
	server, err := redistest.Launch("--appendonly", "yes", "--appendfsync", "always",
		"--enable-debug-command", "yes", "--loading-process-events-interval-bytes", "1024")
	return &single{f, server}, err
}

func (s *single) addrs() []string                           { return []string{s.server.Addr()} }
func (s *single) data() []string                            { return s.addrs() }
func (s *single) master() string                            { return "" }
func (s *single) acks() int                                 { return 0 }
func (s *single) close()                                    { s.server.Close() }
func (s *single) masters(context.Context) ([]string, error) { return s.addrs(), nil }
func (s *single) ask(do func(*redis.Client) error) error    { return ask(s.server.Addr(), do) }

func (s *single) settled(ctx context.Context) error {
	return s.ask(func(c *redis.Client) error { return c.Ping(ctx).Err() })
}

func (s *single) faults() []fault {
	return append(s.field.commonFaults(2*lease),
		fault{name: "server killed and restarted", inject: s.restart},
		fault{name: "server stopped", inject: s.stop},
		fault{name: "LOADING", inject: s.loading},
		fault{name: "READONLY", inject: s.readOnly},
	)
}

func (s *single) restart(ctx context.Context, r *rand.Rand) error {
	s.server.Kill()
	hold(ctx, upTo(r, lease*3/2))
	return s.server.Run()
}

func (s *single) stop(ctx context.Context, r *rand.Rand) error {
	return stopServerUntil(ctx, s.server.Addr(), func() error { hold(ctx, between(r, lease/5, 2*lease)); return nil })
}

// stopServerUntil stops a server's process until wait returns.
func stopServerUntil(ctx context.Context, address string, wait func() error) error {
	pid, err := serverPID(ctx, address)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	return errors.Join(wait(), syscall.Kill(pid, syscall.SIGCONT))
}

func serverPID(ctx context.Context, address string) (pid int, err error) {
	err = ask(address, func(c *redis.Client) error {
		info, err := c.Info(context.WithoutCancel(ctx), "server").Result()
		if err != nil {
			return err
		}
		_, rest, _ := strings.Cut(info, "process_id:")
		_, err = fmt.Sscan(rest, &pid)
		return err
	})
	return pid, err
}

// loading has the server read its file again, slowly. Meanwhile it answers LOADING.
func (s *single) loading(ctx context.Context, r *rand.Rand) error {
	ctx = context.WithoutCancel(ctx)
	return s.ask(func(c *redis.Client) error {
		if err := rewrite(ctx, c); err != nil {
			return err
		}
		keys, err := c.DBSize(ctx).Result()
		if err != nil {
			return err
		}
		each := between(r, lease/5, lease*3/2) / time.Duration(max(keys, 1))
		return errors.Join(
			c.ConfigSet(ctx, "key-load-delay", strconv.FormatInt(each.Microseconds(), 10)).Err(),
			c.Do(ctx, "DEBUG", "LOADAOF").Err(),
			c.ConfigSet(ctx, "key-load-delay", "0").Err())
	})
}

// rewrite makes the append-only file as short as it can be, so that how long it takes to read is
// known.
func rewrite(ctx context.Context, c *redis.Client) error {
	if err := c.BgRewriteAOF(ctx).Err(); err != nil {
		return err
	}
	return until(ctx, "the append-only file to be rewritten", func() (bool, error) {
		info, err := c.Info(ctx, "persistence").Result()
		return strings.Contains(info, "aof_rewrite_in_progress:0") && strings.Contains(info, "aof_rewrite_scheduled:0"), err
	})
}

// readOnly makes the server the replica of one that does not exist. It keeps its data.
func (s *single) readOnly(ctx context.Context, r *rand.Rand) error {
	always := context.WithoutCancel(ctx)
	return s.ask(func(c *redis.Client) error {
		if err := c.ReplicaOf(always, "127.0.0.1", "1").Err(); err != nil {
			return err
		}
		hold(ctx, between(r, lease/5, 2*lease))
		return c.ReplicaOf(always, "NO", "ONE").Err()
	})
}

// until asks until it is so. Servers have no event for what is waited for here.
func until(ctx context.Context, what string, so func() (bool, error)) error {
	for limit := time.Now().Add(patience); ; {
		yes, err := so()
		if yes && err == nil {
			return nil
		}
		if time.Now().After(limit) || !hold(ctx, 5*time.Millisecond) {
			return fmt.Errorf("waited for %s: %w", what, errors.Join(err, errTooLong))
		}
	}
}

var errTooLong = errors.New("it did not happen in a minute")
