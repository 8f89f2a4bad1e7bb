package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/redistest"
)

// settings say how long to measure.
type settings struct {
	rounds  int           // of each comparison
	slice   time.Duration // of one contender in a round
	wakes   int           // how often a waiter in another process is woken
	crowd   int           // how many callers, keys and executions at once
	window  time.Duration // over which renewals are observed
	records int           // how many are stored to weigh them
	only    string        // the name of the one step to take; all if empty
}

// env is what the measures share: one server, and the clients that everything compared goes
// through.
type env struct {
	settings
	server *redistest.Server
	admin  *redis.Client // for measuring, not measured
	plain  *redis.Client
	auto   redis.UniversalClient        // an AutoPipeliner with FullDuplex, on a client of its own
	filler *idempotent.Executor[string] // records what replays need
	closes []func() error
	serial atomic.Int64
}

const (
	day       = 24 * time.Hour
	keyPrefix = "idempotent:" + "default" + ":"
)

// value is what fn returns: 100 bytes.
var value = strings.Repeat("0123456789", 10)

func charge(context.Context) (string, error) { return value, nil }

var errRan = errors.New("fn ran, although its outcome is recorded")

func mustNotRun(context.Context) (string, error) { return "", errRan }

func newEnv(s settings) (_ *env, err error) {
	server, err := redistest.Launch()
	if err != nil {
		return nil, err
	}
	e := &env{settings: s, server: server}
	e.closes = append(e.closes, func() error { server.Close(); return nil })
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	e.admin, e.plain = e.client(), e.client()
	if e.auto, err = e.autoPipeliner(true); err != nil {
		return nil, err
	}
	e.filler, err = e.executor(e.auto)
	return e, err
}

func (e *env) client() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: e.server.Addr()})
	e.closes = append(e.closes, c.Close)
	return c
}

func (e *env) autoPipeliner(fullDuplex bool) (redis.UniversalClient, error) {
	options := redis.DefaultBlockingAutoPipelineOptions()
	options.FullDuplex = fullDuplex
	c := redis.NewClient(&redis.Options{Addr: e.server.Addr(), AutoPipelineOptions: options})
	e.closes = append(e.closes, c.Close)
	auto, err := c.AutoPipeline()
	if err != nil {
		return nil, err
	}
	e.closes = append(e.closes, auto.Close)
	return auto, nil
}

func (e *env) executor(client redis.UniversalClient, opts ...idempotent.Option) (*idempotent.Executor[string], error) {
	x, err := idempotent.New[string](client, "default", opts...)
	if err != nil {
		return nil, err
	}
	e.closes = append(e.closes, x.Close)
	return x, nil
}

func (e *env) close() error {
	var errs []error
	for _, closeOne := range slices.Backward(e.closes) {
		errs = append(errs, closeOne())
	}
	return errors.Join(errs...)
}

// fresh is a key that nobody has used.
func (e *env) fresh() string { return "k" + strconv.FormatInt(e.serial.Add(1), 10) }

// flush empties the server, so that no measure inherits the memory of another.
func (e *env) flush() error { return e.admin.FlushAll(context.Background()).Err() }

// finished records outcomes under n keys.
func (e *env) finished(n int) ([]string, error) {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = e.fresh()
	}
	var next atomic.Int64
	fill := spread(min(n, callers), func(int) error {
		_, err := e.filler.Run(context.Background(), keys[next.Add(1)-1], charge)
		return err
	})
	return keys, fill(n)
}

// info reads one number from INFO.
func (e *env) info(section, field string) (float64, error) {
	text, err := e.admin.Info(context.Background(), section).Result()
	if err != nil {
		return 0, err
	}
	return infoField(text, field)
}

func infoField(text, field string) (float64, error) {
	for line := range strings.Lines(text) {
		if number, ok := strings.CutPrefix(strings.TrimSpace(line), field+":"); ok {
			return strconv.ParseFloat(number, 64)
		}
	}
	return 0, fmt.Errorf("INFO has no %s", field)
}
