package campaign

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/verify/soak/check"
	"github.com/idempotent-go/idempotent/verify/soak/load"
)

// calm is how long servers may take to notice that a client has gone or unsubscribed.
const calm = 10 * time.Second

// idleConnections looks at what workers hold that are open and have nothing to do: no channel but those
// of replay caches, and no more subscription connections than one for each worker, one for each
// replay cache, and master.
func (f *field) idleConnections(ctx context.Context) {
	f.empty(ctx, "channels of idle workers", func(ctx context.Context) ([]string, error) {
		all, err := f.channels(ctx)
		return slices.DeleteFunc(all, ofCache), err
	})
	subscriptions, err := f.clients(ctx, func(line string) bool { return strings.Contains(line, " flags=P ") })
	masters, mastersErr := f.servers.masters(ctx)
	if err != nil || mastersErr != nil {
		f.leftover("", "the connections of idle workers are not known: %v %v", err, mastersErr)
		return
	}
	if most := (len(f.posts) + f.caches()) * len(masters); len(subscriptions) > most {
		f.leftover("", "%d subscription connections of %d workers to %d masters:\n%s", len(subscriptions), len(f.posts), len(masters), strings.Join(subscriptions, "\n"))
	}
}

// ofCache reports whether a channel is one of those that replay caches hold: the prefix of all names
// or, under it, one that no key of a campaign is.
func ofCache(channel string) bool {
	return channel == namePrefix || strings.HasPrefix(channel, namePrefix+"cache-")
}

// caches is how many workers have a replay cache now.
func (f *field) caches() (n int) {
	for _, p := range f.posts {
		if p.cache() > 0 {
			n++
		}
	}
	return n
}

// goneConnections looks for what is left when all workers have gone.
func (f *field) goneConnections(ctx context.Context) {
	f.empty(ctx, "connections of workers that have gone", func(ctx context.Context) ([]string, error) {
		return f.clients(ctx, func(string) bool { return true })
	})
	f.empty(ctx, "channels of workers that have gone", f.channels)
}

// empty waits until nothing is there.
func (f *field) empty(ctx context.Context, what string, look func(context.Context) ([]string, error)) {
	var there []string
	var err error
	for limit := time.Now().Add(calm); ; {
		there, err = look(ctx)
		if err == nil && len(there) == 0 {
			return
		}
		if time.Now().After(limit) || !hold(ctx, 20*time.Millisecond) {
			f.leftover("", "%s: %v %v", what, there, err)
			return
		}
	}
}

// channels are those of the library that anybody is subscribed to.
func (f *field) channels(ctx context.Context) (all []string, err error) {
	for _, address := range f.servers.data() {
		err = ask(address, func(c *redis.Client) error {
			plain, err := c.PubSubChannels(ctx, "idempotent:*").Result()
			if err != nil {
				return err
			}
			sharded, err := c.PubSubShardChannels(ctx, "idempotent:*").Result()
			all = append(append(all, plain...), sharded...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// clients are the connections of workers, which name theirs.
func (f *field) clients(ctx context.Context, which func(line string) bool) (all []string, err error) {
	for _, address := range f.servers.data() {
		err = ask(address, func(c *redis.Client) error {
			list, err := c.ClientList(ctx).Result()
			for line := range strings.Lines(list) {
				if strings.Contains(line, " name="+load.ClientName) && which(line) {
					all = append(all, strings.TrimSpace(line))
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// expiries looks for keys that would stay for ever.
func (f *field) expiries(ctx context.Context) {
	seen := 0
	err := f.everyMaster(ctx, func(c *redis.Client) error {
		keys := c.Scan(ctx, 0, "idempotent:*", 1000).Iterator()
		for keys.Next(ctx) {
			seen++
			ttl, err := c.PTTL(ctx, keys.Val()).Result()
			if err != nil {
				return err
			}
			if ttl == -1 {
				f.leftover("", "%s%s", check.NoExpiry, keys.Val())
			}
		}
		return keys.Err()
	})
	if err != nil || seen == 0 {
		f.leftover("", "the expiries are not known: %d keys seen: %v", seen, err)
	}
}

// audit has a worker ask for every key there was, with no fault in its way.
func (f *field) audit(ctx context.Context) error {
	if err := f.servers.settled(ctx); err != nil {
		return err
	}
	p, err := f.newPost(f.name+"/audit", workers)
	if err != nil {
		return err
	}
	defer p.close()
	keys := int(time.Since(f.began).Seconds()*newKeys) + 1
	err = p.start(func() load.Order {
		o := p.order()
		o.Audit, o.Shares, o.Cache, o.Operators = keys, false, 0, 0
		return o
	})
	if err != nil {
		return err
	}
	p.dismiss(ctx)
	if p.cmd.ProcessState.ExitCode() != 0 {
		return fmt.Errorf("the audit ended with %v", p.cmd.ProcessState)
	}
	return nil
}
