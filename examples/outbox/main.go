// Outbox stores orders in Postgres and announces each one once at a receiver that does not deduplicate. The order, its
// idempotency record and the job that announces it are one transaction; the job's body runs in an Executor.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/pg"
)

type Announce struct {
	Order string `json:"order"`
}

func (Announce) Kind() string { return "announce" }

// An Announcer is the worker of the jobs. River runs a job again after an error, and after the death of its worker.
type Announcer struct {
	river.WorkerDefaults[Announce]
	announced *idempotent.Executor[struct{}]
	receiver  string
}

func (a *Announcer) Work(ctx context.Context, job *river.Job[Announce]) error {
	_, err := a.announced.Run(ctx, job.Args.Order, func(ctx context.Context) (struct{}, error) {
		info, _ := idempotent.RunInfoFromContext(ctx)
		if info.Attempt > 1 { // an earlier worker died, or got no answer: the receiver knows
			if there, err := a.call(ctx, http.MethodHead, job.Args.Order); there || err != nil {
				return struct{}{}, err
			}
		}
		_, err := a.call(ctx, http.MethodPost, job.Args.Order)
		return struct{}{}, err
	})
	return err
}

// call reports whether the receiver answered 2xx. It wraps an error after which the order may be announced.
func (a *Announcer) call(ctx context.Context, method, order string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.receiver+"?order="+url.QueryEscape(order), nil)
	if err != nil {
		return false, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, idempotent.OutcomeUnknown(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 500 {
		return false, idempotent.OutcomeUnknown(fmt.Errorf("receiver: %s", resp.Status))
	}
	return resp.StatusCode < 300, nil
}

func run(ctx context.Context) error {
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := prepare(ctx, pool); err != nil {
		return err
	}
	options, err := redis.ParseURL(os.Getenv("REDIS_URL"))
	if err != nil {
		return err
	}
	client := redis.NewClient(options)
	defer client.Close()
	announced, err := idempotent.New[struct{}](client, "announced", idempotent.WithLease(time.Second), idempotent.WithTTL(30*24*time.Hour))
	if err != nil {
		return err
	}
	defer announced.Close()
	workers := river.NewWorkers()
	river.AddWorker(workers, &Announcer{announced: announced, receiver: os.Getenv("RECEIVER_URL")})
	queue, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 10}},
		Workers: workers,
		Logger:  slog.New(slog.DiscardHandler),
		// A job whose worker died stays "running" until it is rescued: by default after an hour. A rescue is too early while
		// its worker lives; the Executor then makes the second run wait for the first. Rescue after the longest job.
		JobTimeout:           2 * time.Second,
		RescueStuckJobsAfter: 3 * time.Second,
	})
	if err != nil {
		return err
	}
	if err := queue.Start(ctx); err != nil {
		return err
	}
	orders, err := pg.New[string](pool, "orders")
	if err != nil {
		return err
	}
	for _, order := range os.Args[1:] { // each argument is a request; a client repeats it after a failure
		stored, err := orders.Run(ctx, order, func(ctx context.Context, tx pgx.Tx) (string, error) {
			if _, err := tx.Exec(ctx, `INSERT INTO orders VALUES ($1)`, order); err != nil {
				return "", err
			}
			_, err := queue.InsertTx(ctx, tx, Announce{order}, nil)
			return "stored " + order, err
		})
		fmt.Println(stored, err)
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return queue.Stop(stop)
}

// prepare creates the tables of river, of package pg and of this program.
func prepare(ctx context.Context, pool *pgxpool.Pool) error {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	if err := pg.Migrate(ctx, pool); err != nil {
		return err
	}
	_, err = pool.Exec(ctx, `CREATE TABLE IF NOT EXISTS orders (id text NOT NULL)`)
	return err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}
