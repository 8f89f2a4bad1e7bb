// Package campaign runs workers against servers, harms both, and has the history checked.
package campaign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"github.com/idempotent-go/idempotent/verify/soak/check"
	"github.com/idempotent-go/idempotent/verify/soak/history"
	"github.com/idempotent-go/idempotent/verify/soak/load"
)

// A Config says what campaign to run.
type Config struct {
	Duration   time.Duration // of faults; starting and winding up come on top
	Seed       uint64
	Topologies []string // of Topologies
	Acks       bool     // WithReplicaAck where there are replicas
	Dir        string   // for the history and what workers print
	Out        io.Writer
}

// Topologies are the arrangements of servers that a campaign can be run on, all at once.
var Topologies = []string{"single", "sentinel", "cluster"}

const (
	namePrefix = "idempotent:" + load.Namespace + ":"

	lease   = time.Second
	workers = 3  // for each topology
	rate    = 25 // calls a second of each worker, bursts not counted
	newKeys = 8  // a second for each topology
)

// A campaign is one campaign that runs.
type campaign struct {
	Config
	log      *history.Log
	heard    *ears
	began    time.Time
	provider string
	fields   []*field
}

// Run runs a campaign and returns what its history comes to, and where that is.
func Run(ctx context.Context, cfg Config) (report *check.Report, path string, err error) {
	logging.Disable() // servers that cannot be reached are no news here
	path = filepath.Join(cfg.Dir, "history.jsonl")
	c := &campaign{Config: cfg, heard: newEars(), provider: filepath.Join(cfg.Dir, "provider")}
	if c.log, err = history.Create(path, c.heard.hear); err != nil {
		return nil, path, err
	}
	c.began = time.Now()
	c.log.Append(history.Event{Kind: history.Planned, Plan: c.plan()})
	err = errors.Join(c.run(ctx), c.log.Close())
	if err != nil {
		return nil, path, err
	}
	events, err := history.Read(path)
	if err != nil {
		return nil, path, err
	}
	return check.History(events), path, nil
}

func (c *campaign) plan() *history.Plan {
	p := &history.Plan{Seed: c.Seed, Duration: c.Duration, Lease: lease, Prefix: namePrefix, Command: make(map[string]time.Duration)}
	for _, name := range c.Topologies {
		p.Command[name] = load.Command(name)
	}
	p.Acks = c.Acks
	return p
}

func (c *campaign) run(ctx context.Context) error {
	listener, err := net.Listen("unix", c.provider)
	if err != nil {
		return err
	}
	var serving sync.WaitGroup
	serving.Go(func() { c.log.Serve(listener) })
	defer serving.Wait()
	defer listener.Close()
	defer c.close()
	// When this process does not run, neither do the proxies and the provider.
	defer history.Watch(func(took time.Duration) { c.log.Append(history.Event{Kind: history.Stall, Took: took}) })()
	for _, name := range c.Topologies {
		if err := c.open(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	fmt.Fprintf(c.Out, "soak: %v of faults on %v, lease %v, replica acks %v, seed %d\n", c.Duration, c.Topologies, lease, c.Acks, c.Seed)
	return c.together(func(f *field) error { return f.play(ctx) })
}

// open starts the servers of a topology.
func (c *campaign) open(name string) error {
	f := &field{campaign: c, name: name}
	var err error
	if f.servers, err = launch(name, f); err != nil {
		return err
	}
	c.fields = append(c.fields, f)
	return nil
}

func (c *campaign) together(do func(*field) error) error {
	errs := make([]error, len(c.fields))
	var all sync.WaitGroup
	for i, f := range c.fields {
		all.Go(func() {
			if err := do(f); err != nil {
				errs[i] = fmt.Errorf("%s: %w", f.name, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (c *campaign) close() {
	for _, f := range c.fields {
		f.close()
	}
}

// random repeats for the same seed and name.
func (c *campaign) random(name string) *rand.Rand {
	h := uint64(0)
	for _, b := range []byte(name) {
		h = h*31 + uint64(b)
	}
	return rand.New(rand.NewPCG(c.Seed, h)) //nolint:gosec // nothing is secret here
}

// stderr is where a worker's complaints go.
func (c *campaign) stderr() (*os.File, error) {
	return os.OpenFile(filepath.Join(c.Dir, "workers.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}
