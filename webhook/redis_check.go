package webhook

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
)

// Check implements Store. It asks each master that has a lane for its persistence, and compares the number of lanes with
// the one that the first process stored.
func (s *RedisStore) Check(ctx context.Context) (Durability, error) {
	if err := s.checkLanes(ctx); err != nil {
		return Durability{}, err
	}
	var worst Durability
	worstRank := -1
	for _, prefix := range s.prefixes {
		node, err := s.node(ctx, prefix)
		if err != nil {
			return Durability{}, err
		}
		d, rank, err := persistence(ctx, node)
		if err != nil {
			return Durability{}, err
		}
		if rank > worstRank {
			worst, worstRank = d, rank
		}
		if _, cluster := s.rdb.(*redis.ClusterClient); !cluster {
			break
		}
	}
	if s.ack.replicas > 0 {
		worst.Survives += fmt.Sprintf("; it is on %d replicas before it is answered", s.ack.replicas)
	} else {
		worst.Advice = append(worst.Advice, "Use WithReplicaAck if a failover to a replica must not lose accepted events")
	}
	return worst, nil
}

func (s *RedisStore) checkLanes(ctx context.Context) error {
	name := "webhook:{" + s.namespace + "}:lanes"
	if err := s.rdb.SetNX(ctx, name, len(s.prefixes), laneTTL).Err(); err != nil {
		return err
	}
	stored, err := s.rdb.GetEx(ctx, name, laneTTL).Result()
	if err != nil {
		return err
	}
	if stored != strconv.Itoa(len(s.prefixes)) {
		return fmt.Errorf("webhook: namespace %q has %s lanes, this store %d; allowed: the same number in all processes", s.namespace, stored, len(s.prefixes))
	}
	return nil
}

// persistence reports what events on one server survive. A higher rank survives less.
func persistence(ctx context.Context, node redis.Cmdable) (d Durability, rank int, err error) {
	info, err := node.Info(ctx, "persistence").Result()
	if _, refused := errors.AsType[redis.Error](err); refused {
		return Durability{
			Survives: "an unknown fault: the server does not tell how it persists (INFO persistence)",
			Advice:   []string{"Allow INFO, or ask the provider of the server for its persistence"},
		}, 2, nil
	}
	if err != nil {
		return d, 0, err
	}
	aof := field(info, "aof_enabled") == "1"
	fsync, save := configured(ctx, node, "appendfsync"), configured(ctx, node, "save")
	switch {
	case aof && fsync == "always":
		return Durability{Survives: "a crash of the server or its machine (appendfsync always)"}, 0, nil
	case aof && fsync == "no":
		return Durability{
			Survives: "a crash of the server; a crash of its machine loses what the kernel had not written, up to 30 s (appendfsync no)",
			Advice:   []string{"Set appendfsync everysec or always"},
		}, 2, nil
	case aof:
		return Durability{
			Survives: "a crash of the server; a crash of its machine loses up to the last second (appendfsync everysec)",
			Advice:   []string{"Set appendfsync always if the last second must not be lost"},
		}, 1, nil
	case save != "":
		return Durability{
			Survives: "no crash of the server: it loses the events since its last snapshot (no append-only file)",
			Advice:   []string{"Set appendonly yes"}, Unsafe: true,
		}, 3, nil
	}
	return Durability{
		Survives: "no restart of the server: nothing is written to disk",
		Advice:   []string{"Set appendonly yes"}, Unsafe: true,
	}, 4, nil
}

// configured is a setting of the server; "" if it is empty or the server does not tell.
func configured(ctx context.Context, node redis.Cmdable, name string) string {
	return node.ConfigGet(ctx, name).Val()[name]
}

// field returns a field of a reply to INFO.
func field(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Executor implements Store, with an idempotent.Executor on the same client. With WithReplicaAck, its records are
// acknowledged, too.
func (s *RedisStore) Executor(cfg ExecutorConfig) (Executor, error) {
	opts := []idempotent.Option{
		idempotent.WithTTL(cfg.TTL),
		idempotent.WithLease(cfg.Lease),
		idempotent.WithNoWait(),
		idempotent.WithShouldIgnoreError(idempotent.IsRetryable),
		idempotent.WithLogger(cfg.Logger),
	}
	if s.ack.replicas > 0 { // a settlement that a failover loses is repeated, and must find the outcome
		opts = append(opts, idempotent.WithReplicaAck(s.ack.replicas, min(s.ack.timeout, cfg.Lease/3)))
	}
	x, err := idempotent.New[Outcome](s.rdb, "webhook/"+s.namespace, opts...)
	if err != nil {
		return nil, err
	}
	return &redisExecutor{x}, nil
}

type redisExecutor struct{ *idempotent.Executor[Outcome] }

// Execute implements Executor.
func (x *redisExecutor) Execute(ctx context.Context, e Execution) (out Outcome, attempt int, err error) {
	var report idempotent.Report
	opts := []idempotent.RunOption{idempotent.WithReport(&report)}
	if e.Refuse {
		opts = append(opts, idempotent.WithInterrupted(idempotent.Refuse))
	}
	out, err = x.Run(ctx, e.Key, func(ctx context.Context) (Outcome, error) {
		info, ok := idempotent.RunInfoFromContext(ctx)
		if !ok {
			return Outcome{}, errors.New("webhook: the executor did not pass its RunInfo")
		}
		return e.Run(ctx, info.Attempt)
	}, opts...)
	return out, report.Attempt, err
}
