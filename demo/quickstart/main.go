// Quickstart shows package idempotent at work between real processes: a parent starts a Redis, a
// payment provider and five worker processes, and lets a hundred callers ask for the same payment.
// It ends with a status other than zero if a payment was made twice, or anything else went wrong.
//
// worker.go is the part to copy; everything else is there to watch it.
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
	workers   = 5
	perWorker = 20 // callers in each worker
	everybody = workers * perWorker

	// providerTakes is how long the provider needs for a charge.
	providerTakes = 500 * time.Millisecond

	// sceneLimit bounds each scene, so that the demo fails instead of hanging.
	sceneLimit = 15 * time.Second
)

// roleWorker is the first argument of a worker process. Without one it is the parent.
const roleWorker = "worker"

func main() {
	redisproc.Main()
	switch args := os.Args[1:]; {
	case len(args) == 0:
		os.Exit(stage.Parent(runDemo, conclude))
	case args[0] == roleWorker:
		os.Exit(stage.WorkerProcess(roleWorker, serve))
	default:
		fmt.Fprintln(os.Stderr, "quickstart takes no arguments; REDIS_URL names the Redis to use, if set")
		os.Exit(2)
	}
}

// runDemo starts everything, plays the scenes, and has stopped everything when it returns.
func runDemo(ctx context.Context, out *stage.Narrator) (played []*scene, err error) {
	redis, err := redisproc.Start(ctx)
	if err != nil {
		return nil, err
	}
	defer redis.Stop()

	provider, err := startProvider(out)
	if err != nil {
		return nil, err
	}
	defer provider.stop()

	d := &demo{out: out, provider: provider, namespace: stage.Namespace("quickstart")}
	d.fleet, err = startFleet(ctx, setup{RedisURL: redis.URL, ProviderURL: provider.url, Namespace: d.namespace}, d.observe)
	if err != nil {
		return nil, err
	}
	defer d.fleet.Stop(stopLimit)

	d.introduce(redis)
	for _, play := range d.script() {
		s, err := d.perform(ctx, play)
		played = append(played, s)
		if err != nil {
			return played, fmt.Errorf("scene %d, %s: %w", s.number, s.title, err)
		}
		if len(stage.Failing(s.checks)) > 0 { // it should be the last thing on the screen
			break
		}
	}
	return played, nil
}
