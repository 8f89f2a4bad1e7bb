package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// bareCommit stores an outcome if the token is still there, and publishes it: what any commit has to
// do.
const bareCommitText = `
if redis.call('GETRANGE', KEYS[1], 0, 15) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('PUBLISH', KEYS[1], ARGV[2])
return 1`

var (
	bareCommit = redis.NewScript(bareCommitText)
	dayMillis  = strconv.FormatInt(day.Milliseconds(), 10)
)

// The records of the floor are as long as those of the library.
var (
	bareToken   = strings.Repeat("t", 16)
	bareRunning = bareToken + strings.Repeat("r", 21)
	bareDone    = bareToken + strings.Repeat("d", 18) + value
)

// barePair is the least that a first run can be: a claim that tells who is there, and a commit. It
// makes a name that is as long as the library's.
func barePair(ctx context.Context, client redis.UniversalClient, key string) error {
	return barePairOf(ctx, client, key, bareDone)
}

func barePairOf(ctx context.Context, client redis.UniversalClient, key, done string) error {
	return barePairAround(ctx, client, key, done, func() {})
}

// barePairAround runs fn between the claim and the commit.
func barePairAround(ctx context.Context, client redis.UniversalClient, key, done string, fn func()) error {
	name := keyPrefix + key
	if err := client.Process(ctx, bareClaim(ctx, name)); !errors.Is(err, redis.Nil) {
		return fmt.Errorf("the claim of %s found something: %w", name, err)
	}
	fn()
	stored, err := bareCommit.Run(ctx, client, []string{name}, bareToken, done, day.Milliseconds()).Int()
	if err == nil && stored != 1 {
		err = fmt.Errorf("the commit of %s was refused", name)
	}
	return err
}

func bareClaim(ctx context.Context, name string) *redis.StringCmd {
	return redis.NewStringCmd(ctx, "set", name, bareRunning, "nx", "get", "px", day.Milliseconds())
}

// bareGet is the least that a replay can be.
func bareGet(ctx context.Context, client redis.UniversalClient, key string) error {
	return client.Get(ctx, keyPrefix+key).Err()
}

// turns hands out keys one after the other, so that many goroutines ask for different ones.
func turns(keys []string) func() string {
	var next atomic.Int64
	return func() string { return keys[int(next.Add(1))%len(keys)] }
}
