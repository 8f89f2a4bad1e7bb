package main

import (
	"cmp"
	"context"
	"encoding/json"
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

	"github.com/idempotent-go/idempotent/webhook"
	"github.com/redis/go-redis/v9"
)

// What must not be seen in a list of processes comes from the environment.
const (
	envRedis        = "REDIS_URL"
	envLedger       = "LEDGER_URL"
	envStripeSecret = "STRIPE_WEBHOOK_SECRET"
	envBankSecret   = "BANK_WEBHOOK_SECRET"
)

// The providers.
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
	public, operators, namespace string
	leashed, unsafe              bool
	answer, keep, timeout        time.Duration
	backoff, lease, poll         time.Duration
	backlog, workers, attempts   int
}

func readSettings(args []string) (*settings, error) {
	s := &settings{}
	f := flag.NewFlagSet(roleServe, flag.ContinueOnError)
	f.StringVar(&s.public, "public", "127.0.0.1:8080", "address for the providers")
	f.StringVar(&s.operators, "operators", "127.0.0.1:8081", "address for operators; not for the public")
	f.BoolVar(&s.leashed, "leashed", false, "end when standard input ends")
	f.BoolVar(&s.unsafe, "unsafe", false, "accept a Redis that loses accepted events when it restarts")
	f.StringVar(&s.namespace, "namespace", "webhook", "separates endpoints that share a Redis")
	f.DurationVar(&s.answer, "answer", webhook.DefaultAnswerWithin, "how long storing an event may take")
	f.DurationVar(&s.keep, "keep", webhook.DefaultRetention().Events, "how long events are kept")
	f.IntVar(&s.backlog, "backlog", webhook.DefaultBacklog, "unsettled events of a lane before new ones are refused")
	f.IntVar(&s.workers, "workers", webhook.DefaultWorkers, "events handled at once")
	f.DurationVar(&s.timeout, "timeout", webhook.DefaultTimeout, "how long handling an event may take")
	f.IntVar(&s.attempts, "attempts", webhook.DefaultAttempts, "executions before an event is a dead letter")
	f.DurationVar(&s.backoff, "backoff", webhook.DefaultBackoff, "pause after the first failure")
	f.DurationVar(&s.lease, "lease", webhook.DefaultLease, "how long a dead process can block an event")
	f.DurationVar(&s.poll, "poll", webhook.DefaultPoll, "how often to ask for due events")
	return s, f.Parse(args)
}

// maxBody is the largest event. Those of the demo are far smaller.
const maxBody = 256 << 10

// sources returns the providers. Stripe sends an event again under its id; the bank reports a change under any id.
func sources() ([]webhook.Source, error) {
	stripeScheme, err := webhook.Stripe([]string{os.Getenv(envStripeSecret)})
	if err != nil {
		return nil, err
	}
	bankScheme, err := webhook.Stripe([]string{os.Getenv(envBankSecret)})
	if err != nil {
		return nil, err
	}
	version := func(e *webhook.Event) error {
		var p payload
		err := json.Unmarshal(e.Body, &p)
		e.Version = p.Data.Object.Version
		return err
	}
	return []webhook.Source{
		{Name: stripe, Scheme: stripeScheme, MaxBody: maxBody},
		{Name: bank, Scheme: bankScheme, MaxBody: maxBody, Key: webhook.ByChange, Describe: version},
	}, nil
}

// newInbox returns the inbox of the settings.
func newInbox(ctx context.Context, s *settings, rdb redis.UniversalClient, logger *slog.Logger) (*webhook.Inbox, error) {
	from, err := sources()
	if err != nil {
		return nil, err
	}
	store, err := webhook.NewRedisStore(rdb, s.namespace)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = s.workers
	ledger := &ledgerClient{url: os.Getenv(envLedger), client: &http.Client{Transport: transport}, timeout: s.timeout / 3}
	router := webhook.NewRouter()
	for _, source := range from {
		router.Handle(source.Name, "*", webhook.Typed(ledger.handle), webhook.Attempts(s.attempts), webhook.Timeout(s.timeout),
			webhook.Backoff(s.backoff, max(s.backoff, webhook.MaxBackoff)))
	}
	opts := []webhook.Option{
		webhook.WithAnswerWithin(s.answer), webhook.WithBacklog(s.backlog), webhook.WithWorkers(s.workers),
		webhook.WithLease(s.lease), webhook.WithPoll(s.poll), webhook.WithLogger(logger),
		webhook.WithRetention(webhook.Retention{Events: s.keep, Bodies: s.keep, Positions: s.keep}),
	}
	if s.unsafe {
		opts = append(opts, webhook.WithUnsafeStore())
	}
	return webhook.New(ctx, store, from, router, opts...)
}

// routes returns the handlers for the providers and for operators. The operators' address is not for the public, so
// all who reach it may do everything.
func routes(in *webhook.Inbox) (public, operators http.Handler, err error) {
	operators, err = in.Admin(webhook.AdminConfig{
		Authorize: func(*http.Request, webhook.AdminAction) (string, error) { return "operator", nil },
	})
	mux := http.NewServeMux()
	mux.Handle("POST /webhooks/{source}", in)
	return mux, operators, err
}

func serve(ctx context.Context, args []string, logger *slog.Logger) (err error) {
	s, err := readSettings(args)
	if err != nil {
		return err
	}
	if s.leashed {
		signal.Ignore(os.Interrupt) // Ctrl-C reaches the whole group: the parent decides what happens
		var cancel context.CancelFunc
		ctx, cancel = leash(ctx, os.Stdin)
		defer cancel()
	}
	rdb, err := connect(os.Getenv(envRedis))
	if err != nil {
		return err
	}
	defer rdb.Close()
	in, err := newInbox(ctx, s, rdb, logger)
	if err != nil {
		return fmt.Errorf("the endpoint does not start: %w", err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	public, operators, err := routes(in)
	if err != nil {
		return err
	}
	servers := []*http.Server{server(s.public, public), server(s.operators, operators)}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	failed := make(chan error, len(servers))
	if err := listen(servers, func(err error) { failed <- err; stop() }); err != nil {
		return err
	}
	fmt.Printf("listening for providers at http://%s and for operators at http://%s\n", servers[0].Addr, servers[1].Addr)
	err = in.Work(ctx)
	shutdown(servers)
	select {
	case failure := <-failed:
		return failure
	default:
		return err
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

func connect(url string) (*redis.Client, error) {
	opts, err := redis.ParseURL(cmp.Or(url, "missing"))
	if err != nil {
		return nil, fmt.Errorf("%s must name a Redis: %w", envRedis, err)
	}
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
