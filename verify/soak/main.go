// Command soak runs a fault campaign: worker processes make calls, on one Redis, on Redis behind
// Sentinels and on a Redis Cluster, while workers are killed and stopped, the network fails and
// servers are restarted and replaced; and a checker reads the history of all that and says whether
// the library kept its promises. See README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/idempotent-go/idempotent/verify/soak/campaign"
	"github.com/idempotent-go/idempotent/verify/soak/check"
	"github.com/idempotent-go/idempotent/verify/soak/history"
	"github.com/idempotent-go/idempotent/verify/soak/load"
)

func main() {
	if order := os.Getenv(load.Env); order != "" {
		if err := load.Main(order); err != nil {
			fmt.Fprintln(os.Stderr, "soak: worker:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (ok bool, err error) {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	duration := flags.Duration("duration", time.Minute, "how long to inject faults")
	seed := flags.Uint64("seed", 0, "of an earlier campaign, to repeat it; 0 chooses one")
	topologies := flags.String("topologies", strings.Join(campaign.Topologies, ","), "which ones, all at once")
	acks := flags.Bool("acks", true, "with WithReplicaAck where there are replicas")
	keep := flags.Bool("keep", false, "keep the history also when nothing is wrong with it")
	file := flags.String("check", "", "check this history again and run nothing")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	if *file != "" {
		events, err := history.Read(*file)
		if err != nil {
			return false, err
		}
		return check.History(events).Print(os.Stdout), nil
	}
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return false, err
	}
	for *seed == 0 {
		*seed = rand.Uint64()
	}
	report, path, err := campaign.Run(ctx, campaign.Config{
		Duration: *duration, Seed: *seed, Topologies: strings.Split(*topologies, ","), Acks: *acks, Dir: dir, Out: os.Stdout,
	})
	if err == nil {
		ok = report.Print(os.Stdout)
	}
	if ok && !*keep {
		return true, os.RemoveAll(dir)
	}
	fmt.Printf("\nhistory: %s\nseed: %d\n", path, *seed)
	return ok, err
}
