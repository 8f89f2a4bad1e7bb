package campaign

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/verify/soak/check"
)

// processFaults are those of the workers.
func processFaults() []fault {
	return []fault{
		{name: "worker SIGKILL", harm: func(_ context.Context, _ *rand.Rand, p *post) error { return p.kill() }},
		{name: "worker SIGSTOP beyond the lease", harm: func(ctx context.Context, r *rand.Rand, p *post) error {
			return p.pause(ctx, between(r, lease*5/4, 3*lease))
		}},
		{name: "worker SIGSTOP within the lease", harm: func(ctx context.Context, r *rand.Rand, p *post) error {
			return p.pause(ctx, between(r, lease/5, lease*2/3))
		}},
	}
}

// networkFaults are those between one worker and the servers.
func networkFaults() []fault {
	either := func(r *rand.Rand) string { return []string{"upstream", "downstream"}[r.IntN(2)] }
	attribute := func(name string, r *rand.Rand, least, most int) map[string]int {
		return map[string]int{name: least + r.IntN(most-least)}
	}
	at := func(kind, stream string) func(*rand.Rand) toxic {
		return func(*rand.Rand) toxic {
			return toxic{Type: kind, Stream: stream, Attributes: map[string]int{"timeout": 0}}
		}
	}
	return []fault{
		poison("latency", 2*lease, func(r *rand.Rand) toxic {
			return toxic{Type: holdType, Stream: either(r), Attributes: attribute("hold", r, 10, 200)}
		}),
		poison("stall", 2*lease, func(r *rand.Rand) toxic {
			return toxic{Type: holdType, Stream: either(r), Attributes: attribute("hold", r, 1000, 3000)}
		}),
		poison("requests lost (one way)", 2*lease, at("timeout", "upstream")),
		poison("replies lost (one way)", 2*lease, at("timeout", "downstream")),
		poison("reset before execution", lease/2, at("reset_peer", "upstream")),
		poison("reset after execution", lease/2, at("reset_peer", "downstream")),
		poison("cut in mid-command", lease/2, func(r *rand.Rand) toxic {
			return toxic{Type: "limit_data", Stream: either(r), Attributes: attribute("bytes", r, 50, 5000)}
		}),
		{name: "unreachable", harm: func(ctx context.Context, r *rand.Rand, p *post) error {
			if err := p.wires.cut(); err != nil {
				return err
			}
			hold(ctx, between(r, 100*time.Millisecond, 2*lease))
			return p.wires.mend()
		}},
	}
}

// poison puts a toxic on one worker's wires for a while.
func poison(name string, most time.Duration, choose func(*rand.Rand) toxic) fault {
	return fault{name: name, harm: func(ctx context.Context, r *rand.Rand, p *post) error {
		t := choose(r)
		t.Toxicity = []float32{1, 1, 0.5}[r.IntN(3)] // of all connections, or of some
		if err := p.wires.poison(t); err != nil {
			return err
		}
		hold(ctx, between(r, 100*time.Millisecond, most))
		return p.wires.heal()
	}}
}

// commonFaults are those that any server can be given by command. A CLIENT PAUSE, which Sentinels
// feel as well, lasts for up to maxPause.
func (f *field) commonFaults(maxPause time.Duration) []fault {
	return []fault{
		f.command("CLIENT KILL of pub/sub", "CLIENT", "KILL", "TYPE", "pubsub"),
		f.command("CLIENT KILL of all", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
		f.command("SCRIPT FLUSH", "SCRIPT", "FLUSH"),
		f.scriptStorm(),
		f.setting("OOM", "maxmemory", "1"),
		f.setting(check.OutputBuffer, "client-output-buffer-limit", "pubsub 1024 0 0"),
		{name: "CLIENT PAUSE", inject: func(ctx context.Context, r *rand.Rand) error {
			d := between(r, 100*time.Millisecond, maxPause)
			err := f.command("", "CLIENT", "PAUSE", d.Milliseconds(), "ALL").inject(ctx, r)
			hold(ctx, d)
			return err
		}},
	}
}

// command sends a command to all masters. The campaign's end does not interrupt it.
func (f *field) command(name string, args ...any) fault {
	return fault{name: name, inject: func(ctx context.Context, _ *rand.Rand) error {
		ctx = context.WithoutCancel(ctx)
		return f.everyMaster(ctx, func(c *redis.Client) error { return c.Do(ctx, args...).Err() })
	}}
}

// scriptStorm makes nearly every EVALSHA a NOSCRIPT.
func (f *field) scriptStorm() fault {
	flush := f.command("", "SCRIPT", "FLUSH")
	return fault{name: "NOSCRIPT", inject: func(ctx context.Context, r *rand.Rand) error {
		for until := time.Now().Add(between(r, lease/5, lease)); time.Now().Before(until); {
			if err := flush.inject(ctx, r); err != nil {
				return err
			}
			if !hold(ctx, 5*time.Millisecond) {
				return nil
			}
		}
		return nil
	}}
}

// setting gives a parameter of all masters another value for a while.
func (f *field) setting(name, parameter, value string) fault {
	return fault{name: name, inject: func(ctx context.Context, r *rand.Rand) error {
		always := context.WithoutCancel(ctx)
		before := make(map[string]string)
		err := f.everyMaster(always, func(c *redis.Client) error {
			values, err := c.ConfigGet(always, parameter).Result()
			before[c.Options().Addr] = values[parameter]
			return errors.Join(err, c.ConfigSet(always, parameter, value).Err())
		})
		hold(ctx, between(r, lease/2, 2*lease))
		for address, value := range before {
			err = errors.Join(err, ask(address, func(c *redis.Client) error { return c.ConfigSet(always, parameter, value).Err() }))
		}
		return err
	}}
}
