// Jobs shows package idempotent under a job queue, github.com/hibiken/asynq. A parent starts a
// Redis, a bank, worker processes and a front where visitors ask for results. Then it has jobs
// delivered twice, kills a worker, lets a job time out, and so on, and looks into the bank's books.
// It ends with a status other than zero if a refund was paid twice, or anything else went wrong.
//
// job.go, queue.go and reader.go are the parts to copy; everything else is there to watch them.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/redisproc"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

const (
	workers = 2

	// sceneLimit bounds each scene, so that the demo fails instead of hanging.
	sceneLimit = 20 * time.Second
)

// What a process of this program is, by its first argument. Without one it is the parent.
const (
	roleWorker = "worker"
	roleFront  = "front"
)

func main() {
	redisproc.Main()
	switch args := os.Args[1:]; {
	case len(args) == 0:
		os.Exit(stage.Parent(runDemo, (*stage.Narrator).Conclude))
	case args[0] == roleWorker:
		os.Exit(stage.WorkerProcess(roleWorker, work))
	case args[0] == roleFront:
		os.Exit(stage.WorkerProcess(roleFront, attendFront))
	default:
		fmt.Fprintln(os.Stderr, "jobs takes no arguments; REDIS_URL names the Redis to use, if set")
		os.Exit(2)
	}
}

// runDemo starts everything, plays the scenes, and has stopped everything when it returns.
func runDemo(ctx context.Context, out *stage.Narrator) (t stage.Tally, err error) {
	redis, err := redisproc.Start(ctx)
	if err != nil {
		return t, err
	}
	defer redis.Stop()
	bank, err := startBank(out)
	if err != nil {
		return t, err
	}
	defer bank.stop()
	d, err := newDemo(ctx, out, bank, redis.URL)
	if err != nil {
		return t, err
	}
	defer d.close()
	d.fleet, err = startFleet(ctx, setup{RedisURL: redis.URL, BankURL: bank.url, Namespace: d.namespace}, d.hear)
	if err != nil {
		return t, err
	}
	defer d.fleet.stop()

	d.introduce(redis.Description)
	for _, play := range script() {
		checks, err := d.perform(ctx, play)
		if err != nil {
			return t, fmt.Errorf("scene %d, %s: %w", d.played, play.title, err)
		}
		if t.Add(checks); t.Failed > 0 { // it should be the last thing on the screen
			break
		}
	}
	return t, nil
}
