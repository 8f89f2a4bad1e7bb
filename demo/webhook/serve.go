package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/idempotent-go/idempotent/demo/webhook/endpoint"
	"github.com/redis/go-redis/v9"
)

// What must not be seen in a list of processes comes from the environment.
const (
	envRedis        = "REDIS_URL"
	envLedger       = "LEDGER_URL"
	envStripeSecret = "STRIPE_WEBHOOK_SECRET"
	envBankSecret   = "BANK_WEBHOOK_SECRET"
)

// The providers. Stripe sends an event again under its id; the bank sends a change under any.
const (
	stripe = "stripe"
	bank   = "bank"
)

// grace is how long requests under way may take when the process is to end.
const grace = 5 * time.Second

// serveProcess is a whole endpoint. It ends when ctx does, and lets handlers finish.
func serveProcess(ctx context.Context, args []string) int {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err := serve(ctx, args, logger)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	default:
		fmt.Fprintln(os.Stderr, "webhook:", err)
		return 1
	}
}

// settings are what an endpoint is started with.
type settings struct {
	endpoint.Config
	public, operators string
	leashed           bool
}

func readSettings(args []string, logger *slog.Logger) (*settings, error) {
	s := &settings{Config: endpoint.Defaults()}
	s.Logger = logger
	s.LedgerURL = os.Getenv(envLedger)
	s.Providers = []endpoint.Provider{
		{Name: stripe, Secret: os.Getenv(envStripeSecret), Key: endpoint.ByEventID},
		{Name: bank, Secret: os.Getenv(envBankSecret), Key: endpoint.ByChange},
	}
	f := flag.NewFlagSet(roleServe, flag.ContinueOnError)
	f.StringVar(&s.public, "public", "127.0.0.1:8080", "address for the providers")
	f.StringVar(&s.operators, "operators", "127.0.0.1:8081", "address for those who run this; not for the public")
	f.BoolVar(&s.leashed, "leashed", false, "end when standard input ends")
	f.StringVar(&s.Namespace, "namespace", s.Namespace, "keeps endpoints apart that share a Redis")
	f.DurationVar(&s.AnswerWithin, "answer", s.AnswerWithin, "how long storing an event may take")
	f.DurationVar(&s.Keep, "keep", s.Keep, "how long events are remembered")
	f.IntVar(&s.Backlog, "backlog", s.Backlog, "unsettled events before new ones are refused")
	f.IntVar(&s.Workers, "workers", s.Workers, "events handled at once")
	f.DurationVar(&s.HandlerTimeout, "timeout", s.HandlerTimeout, "how long handling an event may take")
	f.IntVar(&s.Attempts, "attempts", s.Attempts, "executions before an event is dead")
	f.DurationVar(&s.Backoff.Base, "backoff", s.Backoff.Base, "pause after the first failure")
	f.DurationVar(&s.Backoff.Limit, "backoff-limit", s.Backoff.Limit, "longest pause")
	f.DurationVar(&s.Lease, "lease", s.Lease, "how long a dead process can block an event")
	f.DurationVar(&s.Stale, "stale", s.Stale, "when an event that was not settled is given out again")
	f.DurationVar(&s.Wake, "wake", s.Wake, "how often to look what is stale or due")
	return s, f.Parse(args)
}

func serve(ctx context.Context, args []string, logger *slog.Logger) error {
	s, err := readSettings(args, logger)
	if err != nil {
		return err
	}
	if s.leashed {
		signal.Ignore(os.Interrupt) // Ctrl-C reaches the whole group: the parent decides what happens
		var cancel context.CancelFunc
		ctx, cancel = leash(ctx, os.Stdin)
		defer cancel()
	}
	rdb, err := connect(os.Getenv(envRedis), s.Workers)
	if err != nil {
		return err
	}
	defer rdb.Close()
	e, err := endpoint.New(rdb, s.Config)
	if err != nil {
		return err
	}
	defer e.Close()
	if err := rdb.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("no answer from Redis: %w", err)
	}

	servers := []*http.Server{server(s.public, e.Webhooks()), server(s.operators, e.Operators())}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	failed := make(chan error, len(servers))
	if err := listen(servers, func(err error) { failed <- err; stop() }); err != nil {
		return err
	}
	fmt.Printf("listening for providers at http://%s and for operators at http://%s\n", servers[0].Addr, servers[1].Addr)
	e.Work(ctx)
	shutdown(servers)
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// leash ends the context when in does, as it does when the parent dies.
func leash(ctx context.Context, in io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return ctx, cancel
}

func connect(url string, workers int) (*redis.Client, error) {
	opts, err := redis.ParseURL(cmp.Or(url, "missing"))
	if err != nil {
		return nil, fmt.Errorf("%s must name a Redis: %w", envRedis, err)
	}
	opts.ContextTimeoutEnabled = true // else a slow Redis holds up the answers to the providers
	opts.PoolSize = 2*workers + 64    // the workers wait on their connections
	return redis.NewClient(opts), nil
}

// server is bounded in all that a client can make it wait for or hold.
func server(addr string, h http.Handler) *http.Server {
	return &http.Server{
		Addr:              addr,
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      20 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
}

// listen starts the servers. Their Addr is then the one they have got.
func listen(servers []*http.Server, fail func(error)) error {
	for _, s := range servers {
		l, err := net.Listen("tcp", s.Addr)
		if err != nil {
			return err
		}
		s.Addr = l.Addr().String()
		go func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				fail(err)
			}
		}()
	}
	return nil
}

func shutdown(servers []*http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	var all sync.WaitGroup
	for _, s := range servers {
		all.Go(func() {
			if s.Shutdown(ctx) != nil {
				_ = s.Close()
			}
		})
	}
	all.Wait()
}
