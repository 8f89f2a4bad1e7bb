// Webhook is an endpoint for Stripe-style events, in which each event has one effect, and a demo
// that tries to make it have two, or none. Without an argument the demo runs. It ends with a status
// other than zero if an event was lost or had two effects, or anything else went wrong.
//
// serve.go and credit.go are the endpoint, on package webhook; everything else is there to watch it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/idempotent-go/idempotent/demo/internal/redisproc"
	"github.com/idempotent-go/idempotent/demo/internal/stage"
)

// roleServe is the first argument of a process that is an endpoint and nothing else.
const roleServe = "serve"

func main() {
	redisproc.Main()
	ctx, _ := stage.Interruptible()
	if len(os.Args) > 1 && os.Args[1] == roleServe {
		os.Exit(serveProcess(ctx, os.Args[2:]))
	}
	os.Exit(demoProcess(ctx, os.Args[1:]))
}

func demoProcess(ctx context.Context, args []string) int {
	d := &demo{out: stage.NewNarrator(os.Stdout)}
	flags := flag.NewFlagSet("webhook", flag.ContinueOnError)
	flags.IntVar(&d.load.sent, "events", 10_000, "how many events the load sends, up to 100,000; 30 % are duplicates")
	flags.DurationVar(&d.load.limit, "p99", 100*time.Millisecond, "the load's slowest answer but one in a hundred; 0: whatever it is")
	loadOnly := flags.Bool("load", false, "the load and nothing else")
	if flags.Parse(args) != nil {
		return 2
	}
	if flags.NArg() > 0 || d.load.sent < 100 || d.load.sent > 100_000 {
		fmt.Fprintln(os.Stderr, "usage: webhook [-load] [-events 100..100000] [-p99 100ms], or webhook serve -h")
		return 2
	}
	if d.load.limit == 0 { // a busy machine is no failure then
		d.patient = true
	}
	result, err := d.run(ctx, *loadOnly)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("stopped: %w", err)
	}
	return d.out.Conclude(result, err)
}
