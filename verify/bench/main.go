// Command bench measures what the library costs beside the least that Redis allows, and beside
// what people do without it. It starts its own redis-server. It is no test: it says which targets
// are met, and exits with 0 either way.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string, out, progress io.Writer) error {
	if addr := os.Getenv(childVariable); addr != "" {
		return childMain(addr)
	}
	s := settings{crowd: 10_000, records: 50_000}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&s.rounds, "rounds", 30, "rounds of each comparison; of many goroutines, four times as many")
	flags.DurationVar(&s.slice, "slice", 60*time.Millisecond, "time of each contender in a round")
	flags.IntVar(&s.wakes, "wakes", 600, "how often a waiter in another process is woken")
	flags.DurationVar(&s.window, "window", 20*time.Second, "how long the renewals of executions in flight are observed")
	flags.StringVar(&s.only, "only", "", "the name of the one step to take; then other sections, and the machine's, stay as they are")
	docs := flags.String("docs", "", "directory of performance.md, in which tables and charts are brought up to date; empty for none")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if s.rounds < 1 || s.slice <= 0 || s.wakes < 2 || s.window <= 0 {
		return fmt.Errorf("-rounds %d, -slice %v, -wakes %d, -window %v: allowed are 1 or more, 2 or more wakes, and times above 0", s.rounds, s.slice, s.wakes, s.window)
	}
	r, err := measure(s, progress)
	if err != nil {
		return err
	}
	r.print(out)
	if *docs == "" {
		return nil
	}
	if s.only != "" {
		return r.writeDocument(filepath.Join(*docs, "performance.md"))
	}
	if err := r.writeCharts(filepath.Join(*docs, "img")); err != nil {
		return err
	}
	return r.writeDocument(filepath.Join(*docs, "performance.md"))
}

// A step measures something and adds it to the report.
type step struct {
	name string
	do   func(*env, *report) error
}

func rowsOf(measure func(*env) ([]row, error)) func(*env, *report) error {
	return func(e *env, r *report) error {
		rows, err := measure(e)
		r.rows = append(r.rows, rows...)
		return err
	}
}

func sectionOf(name string, measure func(*env) (table, error)) func(*env, *report) error {
	return func(e *env, r *report) (err error) {
		r.sections[name], err = measure(e)
		return err
	}
}

var steps = []step{
	{"replay, serial", rowsOf((*env).replaySerial)},
	{"first run, serial", rowsOf((*env).firstSerial)},
	{"replay, many goroutines", rowsOf((*env).replayTogether)},
	{"first run, many goroutines", rowsOf((*env).firstTogether)},
	{"allocations", rowsOf((*env).allocations)},
	{"waking another process", func(e *env, r *report) error {
		rows, seen, err := e.waking()
		r.rows, r.wakes = append(r.rows, rows...), seen
		return err
	}},
	{"many callers of one key", rowsOf((*env).oneKey)},
	{"many keys waited for", func(e *env, r *report) error {
		rows, grown, err := e.keysGrow()
		r.rows, r.sections["keys"] = append(r.rows, rows...), grown
		return err
	}},
	{"many executions in flight", rowsOf((*env).renewals)},
	{"records", rowsOf((*env).recordOverhead)},
	{"one hot key", rowsOf((*env).hotKey)},
	{"replay cache", rowsOf((*env).cacheHit)},
	{"peers", func(e *env, r *report) (err error) {
		r.sections["peers"], r.peerTimes, err = e.peers()
		return err
	}},
	{"AutoPipeliner", sectionOf("autopipeliner", (*env).pipelining)},
	{"throughput", func(e *env, r *report) (err error) {
		r.sections["throughput"], r.curves, err = e.throughput()
		return err
	}},
	{"RunMany", sectionOf("many", (*env).many)},
	{"growth: callers", sectionOf("callers", (*env).callersGrow)},
	{"growth: nodes", sectionOf("nodes", (*env).nodes)},
	{"growth: payload", sectionOf("payload", (*env).payloadsGrow)},
	{"growth: records", sectionOf("stored", (*env).storedGrow)},
	{"sizing", sectionOf("sizing", (*env).sizing)},
	{"webhooks", sectionOf("webhooks", (*env).webhooks)},
}

// measure takes all steps, one after the other.
func measure(s settings, progress io.Writer) (_ *report, err error) {
	e, err := newEnv(s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	r := &report{machine: e.describe(), sections: make(map[string]table)}
	began := time.Now()
	for _, step := range steps {
		if s.only != "" && s.only != step.name {
			continue
		}
		fmt.Fprintf(progress, "%6.1fs  %s\n", time.Since(began).Seconds(), step.name)
		if err := step.do(e, r); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return r, nil
}
