package idempotent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemcheck"
)

// A Charge is what the provider of these examples answers.
type Charge struct {
	ID    string
	Cents int
}

// exampleProvider is a payment provider in memory.
type exampleProvider struct {
	charges map[string]Charge // by the idempotency key that came with them
}

func (p *exampleProvider) Find(_ context.Context, key string) (Charge, bool, error) {
	charge, found := p.charges[key]
	return charge, found, nil
}

func (p *exampleProvider) Charge(_ context.Context, key string, cents int) (Charge, error) {
	charge, found := p.charges[key]
	if !found {
		charge = Charge{ID: fmt.Sprintf("ch_%d", len(p.charges)+1), Cents: cents}
		p.charges[key] = charge
	}
	return charge, nil
}

// exampleRedis is a Redis in memory and a client for it. In a program of yours, the client is
// redis.NewClient(&redis.Options{Addr: "localhost:6379"}) or any other redis.UniversalClient.
func exampleRedis() (rdb *redis.Client, stop func()) {
	server, err := miniredis.Run()
	if err != nil {
		panic(err)
	}
	rdb = redis.NewClient(&redis.Options{Addr: server.Addr()})
	return rdb, func() {
		_ = rdb.Close()
		server.Close()
	}
}

// exampleExecutor is an executor on a Redis in memory.
func exampleExecutor[T any](opts ...idempotent.Option) (x *idempotent.Executor[T], stop func()) {
	rdb, stopRedis := exampleRedis()
	x, err := idempotent.New[T](rdb, "default", opts...)
	if err != nil {
		panic(err)
	}
	return x, func() {
		_ = x.Close()
		stopRedis()
	}
}

// readmeExample is the second block of README.md; TestReadmeSecondBlockIsAnExample compares them.
func readmeExample(ctx context.Context, charges *idempotent.Executor[Charge], provider *exampleProvider) (Charge, error) {
	// README: begin
	charge, err := charges.Run(ctx, "order-42", func(ctx context.Context) (Charge, error) {
		info, _ := idempotent.RunInfoFromContext(ctx)
		if info.Attempt > 1 { // an earlier attempt ended without an outcome: was the card charged?
			charge, found, err := provider.Find(ctx, info.DownstreamKey())
			if found || err != nil {
				return charge, idempotent.OutcomeUnknown(err) // a nil err stays nil
			}
		}
		return provider.Charge(ctx, info.DownstreamKey(), 49_99)
	})
	// README: end
	return charge, err
}

// An order is charged once, however often and by whomever it is asked for.
func Example() {
	rdb, stop := exampleRedis()
	defer stop()
	provider := &exampleProvider{charges: make(map[string]Charge)}
	ctx := context.Background()

	charges, err := idempotent.New[Charge](rdb, "payments",
		idempotent.WithTTL(24*time.Hour))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer charges.Close()

	for range 3 {
		var report idempotent.Report
		charge, err := charges.Run(ctx, "order-42", func(ctx context.Context) (Charge, error) {
			info, _ := idempotent.RunInfoFromContext(ctx)
			return provider.Charge(ctx, info.DownstreamKey(), 49_99)
		}, idempotent.WithReport(&report))
		fmt.Println(charge.ID, charge.Cents, err, report.Source)
	}
	fmt.Println(len(provider.charges), "charge")
	// Output:
	// ch_1 4999 <nil> executed
	// ch_1 4999 <nil> replayed
	// ch_1 4999 <nil> replayed
	// 1 charge
}

// The code of README.md.
func Example_readme() {
	charges, stop := exampleExecutor[Charge]()
	defer stop()
	provider := &exampleProvider{charges: make(map[string]Charge)}
	for range 2 {
		fmt.Println(readmeExample(context.Background(), charges, provider))
	}
	// Output:
	// {ch_1 4999} <nil>
	// {ch_1 4999} <nil>
}

// Callers that come at the same moment: one of them runs fn, the others wait and get its result.
func ExampleExecutor_Run() {
	jobs, stop := exampleExecutor[string]()
	defer stop()

	var callers sync.WaitGroup
	results := make(chan string, 100)
	runs := 0 // one goroutine at most changes it
	for range 100 {
		callers.Go(func() {
			result, err := jobs.Run(context.Background(), "report-2026-11", func(context.Context) (string, error) {
				runs++
				time.Sleep(10 * time.Millisecond)
				return "42 pages", nil
			})
			if err != nil {
				result = err.Error()
			}
			results <- result
		})
	}
	callers.Wait()
	close(results)

	counts := make(map[string]int)
	for result := range results {
		counts[result]++
	}
	fmt.Println(counts, "from", runs, "run")
	// Output: map[42 pages:100] from 1 run
}

// fn learns from its attempt number that an earlier execution ended without an outcome, here
// because its caller left. It asks the provider before it charges.
func ExampleRunInfoFromContext() {
	charges, stop := exampleExecutor[Charge]()
	defer stop()
	provider := &exampleProvider{charges: make(map[string]Charge)}

	charge := func(ctx context.Context, leave func()) (Charge, error) {
		info, _ := idempotent.RunInfoFromContext(ctx)
		fmt.Println("attempt", info.Attempt)
		if info.Attempt > 1 {
			charge, found, err := provider.Find(ctx, info.DownstreamKey())
			if err != nil || found {
				fmt.Println("found", charge.ID)
				return charge, err
			}
		}
		if _, err := provider.Charge(ctx, info.DownstreamKey(), 49_99); err != nil {
			return Charge{}, err
		}
		leave() // just after the card was charged
		return Charge{}, ctx.Err()
	}

	ctx, cancel := context.WithCancel(context.Background())
	_, err := charges.Run(ctx, "order-42", func(ctx context.Context) (Charge, error) { return charge(ctx, cancel) })
	fmt.Println(err)

	got, err := charges.Run(context.Background(), "order-42", func(ctx context.Context) (Charge, error) { return charge(ctx, func() {}) })
	fmt.Println(got.ID, err, len(provider.charges), "charge")
	// Output:
	// attempt 1
	// context canceled
	// attempt 2
	// found ch_1
	// ch_1 <nil> 1 charge
}

// Where an outcome that nobody knows is worse than an error, it is refused until somebody has
// found out.
func ExampleWithInterrupted() {
	transfers, stop := exampleExecutor[string](idempotent.WithInterrupted(idempotent.Refuse))
	defer stop()
	ctx := context.Background()

	leaving, leave := context.WithCancel(ctx)
	_, err := transfers.Run(leaving, "transfer-7", func(ctx context.Context) (string, error) {
		leave()
		return "", ctx.Err()
	})
	fmt.Println(err)

	again := func() (string, error) {
		return transfers.Run(ctx, "transfer-7", func(context.Context) (string, error) { return "sent twice", nil })
	}
	_, err = again()
	fmt.Println(errors.Is(err, idempotent.ErrInterrupted))

	// An operator asks the bank.
	if _, err := transfers.Resolve(ctx, "transfer-7", "sent, says the bank"); err != nil {
		fmt.Println(err)
	}
	fmt.Println(again())
	// Output:
	// context canceled
	// true
	// sent, says the bank <nil>
}

// An error that frees the key: the provider did nothing, so the next caller tries again.
func ExampleWithShouldIgnoreError() {
	charges, stop := exampleExecutor[string](idempotent.WithShouldIgnoreError(idempotent.IsRetryable))
	defer stop()

	answers := []error{
		idempotent.Retryable(errors.New("too many requests")), // not recorded
		errors.New("card declined"),                           // recorded
	}
	for range 3 {
		_, err := charges.Run(context.Background(), "order-42", func(context.Context) (string, error) {
			answer := answers[0]
			answers = answers[1:]
			return "", answer
		})
		fmt.Println(err, errors.Is(err, idempotent.ErrReplayed))
	}
	// Output:
	// too many requests false
	// card declined false
	// card declined true
}

// An error after which nobody knows whether the card was charged is neither recorded nor ignored:
// the next caller is told by its attempt number to ask first.
func ExampleOutcomeUnknown() {
	charges, stop := exampleExecutor[string]()
	defer stop()

	for range 2 {
		charge, err := charges.Run(context.Background(), "order-42", func(ctx context.Context) (string, error) {
			info, _ := idempotent.RunInfoFromContext(ctx)
			if info.Attempt > 1 {
				return "ch_1, says the provider", nil
			}
			return "", idempotent.OutcomeUnknown(errors.New("connection reset by peer"))
		})
		fmt.Printf("%q %v\n", charge, err)
	}
	// Output:
	// "" connection reset by peer
	// "ch_1, says the provider" <nil>
}

// DeclinedError is an error of a payment provider.
type DeclinedError struct {
	Reason string `json:"reason"`
}

func (e *DeclinedError) Error() string { return "declined: " + e.Reason }

// errFraud is another one.
var errFraud = errors.New("suspected fraud")

// Errors come back as themselves when their values and types are registered, however deeply they
// were wrapped.
func ExampleNewErrorRegistry() {
	charges, stop := exampleExecutor[Charge](
		idempotent.WithErrors(idempotent.NewErrorRegistry(
			idempotent.ErrorType[*DeclinedError]("declined"),
			idempotent.Sentinel("fraud", errFraud))))
	defer stop()

	for range 2 {
		_, err := charges.Run(context.Background(), "order-42", func(context.Context) (Charge, error) {
			declined := &DeclinedError{Reason: "stolen card"}
			return Charge{}, fmt.Errorf("order 42: %w", errors.Join(declined, errFraud))
		})
		var declined *DeclinedError
		fmt.Println(errors.As(err, &declined), declined.Reason, errors.Is(err, errFraud), errors.Is(err, idempotent.ErrReplayed))
	}
	// Output:
	// true stolen card true false
	// true stolen card true true
}

// The same key with another request is a mistake of the caller, not a retry.
func ExampleWithFingerprint() {
	charges, stop := exampleExecutor[Charge]()
	defer stop()

	pay := func(cents int) (Charge, error) {
		return charges.Run(context.Background(), "order-42", func(context.Context) (Charge, error) {
			return Charge{ID: "ch_1", Cents: cents}, nil
		}, idempotent.WithFingerprint(fmt.Append(nil, cents)))
	}
	fmt.Println(pay(49_99))
	fmt.Println(pay(49_99))
	_, err := pay(59_99)
	fmt.Println(errors.Is(err, idempotent.ErrKeyReused))
	// Output:
	// {ch_1 4999} <nil>
	// {ch_1 4999} <nil>
	// true
}

// A caller that has no time to wait is told at once, with a time to come back after.
func ExampleWithNoWait() {
	jobs, stop := exampleExecutor[string](idempotent.WithLease(10 * time.Second))
	defer stop()
	ctx := context.Background()

	_, _ = jobs.Run(ctx, "job-1", func(context.Context) (string, error) {
		// Meanwhile, somebody else; here with a context that is not fn's.
		_, err := jobs.Run(ctx, "job-1", func(context.Context) (string, error) { return "", nil }, idempotent.WithNoWait())
		busy, ok := errors.AsType[*idempotent.InProgressError](err)
		fmt.Println(ok, busy.RetryAfter > 0, busy.RetryAfter <= 10*time.Second)
		return "done", nil
	})
	// Output: true true true
}

// Peek says where an operation stands, and Forget frees its key.
func ExampleExecutor_Peek() {
	jobs, stop := exampleExecutor[string]()
	defer stop()
	ctx := context.Background()
	show := func() {
		status, err := jobs.Peek(ctx, "job-1")
		fmt.Println(status.State, status.Attempt, err)
	}

	show()
	_, _ = jobs.Run(ctx, "job-1", func(context.Context) (string, error) {
		show()
		return "done", nil
	})
	show()
	_ = jobs.Forget(ctx, "job-1")
	show()
	// Output:
	// absent 0 <nil>
	// running 1 <nil>
	// succeeded 1 <nil>
	// absent 0 <nil>
}

// At the start of a program: log what Check finds, and do not start where records are not safe.
func ExampleExecutor_Check() {
	charges, stop := exampleExecutor[Charge]()
	defer stop()
	logger := slog.New(slog.DiscardHandler)

	fit := func(ctx context.Context) error {
		// docs/redis.md: begin
		findings, err := charges.Check(ctx)
		if err != nil {
			return err // Redis cannot be asked: try again, or fail
		}
		for _, f := range findings {
			if f.Severity >= idemcheck.SeverityUnsafe {
				return errors.New(f.String())
			}
			logger.Warn("redis", "code", f.Code, "server", f.Server, "found", f.Detail, "advice", f.Advice)
		}
		return nil
		// docs/redis.md: end
	}
	fmt.Println(fit(context.Background()))
	// Output: <nil>
}

// A record that another codec, or another T, has written is an error, never a second run.
func ExampleWithCodec() {
	rdb, stop := exampleRedis()
	defer stop()
	ctx := context.Background()

	for _, codec := range []idempotent.Codec[Charge]{idempotent.JSON[Charge](), idempotent.Msgpack[Charge]()} {
		charges, err := idempotent.New[Charge](rdb, "default", idempotent.WithCodec(codec))
		if err != nil {
			fmt.Println(err)
			return
		}
		charge, err := charges.Run(ctx, "order-42", func(context.Context) (Charge, error) {
			return Charge{ID: "ch_1", Cents: 49_99}, nil
		})
		fmt.Println(charge, err)
		_ = charges.Close()
	}
	// Output:
	// {ch_1 4999} <nil>
	// { 0} idempotent: record cannot be read: it was written with the JSON codec, this executor has msgpack
}

// An observer counts what happens, for metrics.
func ExampleWithObserver() {
	events := make(map[idempotent.EventKind]int)
	var mu sync.Mutex
	jobs, stop := exampleExecutor[string](idempotent.WithObserver(idempotent.ObserverFunc(func(_ context.Context, e idempotent.Event) {
		mu.Lock()
		defer mu.Unlock()
		events[e.Kind]++
	})))
	defer stop()

	for range 3 {
		_, _ = jobs.Run(context.Background(), "job-1", func(context.Context) (string, error) { return "done", nil })
	}
	mu.Lock()
	defer mu.Unlock()
	fmt.Println(events)
	// Output: map[claimed:1 executed:1 recorded:1 replayed:2 returned:3]
}

// Hooks see what one caller gets, and may change it; the record stays as it was.
func ExampleWithHooks() {
	jobs, stop := exampleExecutor[string](idempotent.WithHooks(idempotent.Hooks[string]{
		OnSuccessReplay: func(_ context.Context, key, value string) string { return value + ", again" },
	}))
	defer stop()

	for range 3 {
		fmt.Println(jobs.Run(context.Background(), "job-1", func(context.Context) (string, error) { return "done", nil }))
	}
	// Output:
	// done <nil>
	// done, again <nil>
	// done, again <nil>
}

// A key of parts: no two lists of parts give the same key.
func ExampleHashKey() {
	fmt.Println(idempotent.HashKey("tenant-1", "2/refund") == idempotent.HashKey("tenant-1/2", "refund"))
	fmt.Println(len(idempotent.HashKey("tenant-1", "POST /charges", "8d7a")))
	// Output:
	// false
	// 64
}
