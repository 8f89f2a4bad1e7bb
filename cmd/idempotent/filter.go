package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/present"
)

// filterFlags are the flags that select entries.
type filterFlags struct {
	namespace, prefix, owner string
	states                   []string
	olderThan, pause         time.Duration
	batch                    int
}

// states are what can be stored, in the order of tables.
var states = []idempotent.State{
	idempotent.StateRunning, idempotent.StateAbandoned, idempotent.StateInterrupted, idempotent.StateUnreadable,
	idempotent.StateValueNotKept, idempotent.StateFailed, idempotent.StateSucceeded,
}

func stateNames() (names []string) {
	for _, s := range states {
		names = append(names, s.String())
	}
	return names
}

func (f *filterFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVarP(&f.namespace, "namespace", "n", "", "only this namespace")
	flags.StringVar(&f.prefix, "prefix", "", "only keys that begin with this; needs --namespace")
	flags.StringArrayVarP(&f.states, "state", "s", nil, "only this state, may be repeated: "+strings.Join(stateNames(), "; "))
	flags.StringVar(&f.owner, "owner", "", "only what this process runs, or ran last")
	flags.DurationVar(&f.olderThan, "older-than", 0, "only what began, or was recorded, so long ago")
	f.addScan(c)
	_ = c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(stateNames(), cobra.ShellCompDirectiveNoFileComp))
}

func (f *filterFlags) addScan(c *cobra.Command) {
	c.Flags().IntVar(&f.batch, "batch", 0, "names that Redis looks at in one step (default 500)")
	c.Flags().DurationVar(&f.pause, "pause", 0, "time between two steps, negative for none (default 100ms)")
}

func (f *filterFlags) filter() (idempotent.Filter, error) {
	filter := idempotent.Filter{Namespace: f.namespace, KeyPrefix: f.prefix, Owner: f.owner, MinAge: f.olderThan, Batch: f.batch, Pause: f.pause}
	for _, name := range f.states {
		found := false
		for _, s := range states {
			if s.String() == name {
				filter.States, found = append(filter.States, s), true
			}
		}
		if !found {
			return filter, usagef("--state is %.50q; allowed: %s", name, strings.Join(stateNames(), "; "))
		}
	}
	return filter, nil
}

// scan calls each for the entries that the flags select, and shows on a terminal how many it has seen.
func (a *app) scan(c *cobra.Command, filter idempotent.Filter, each func(*idempotent.Entry) error) error {
	seen, shown := 0, time.Now()
	report := func(e *idempotent.Entry) {
		if a.progress && time.Since(shown) > progressInterval {
			shown = time.Now()
			fmt.Fprintf(a.err, "\r%d entries so far, at %s\x1b[K", seen, present.Text(e.Namespace))
		}
	}
	defer func() {
		if a.progress {
			fmt.Fprint(a.err, "\r\x1b[K")
		}
	}()
	for e, err := range a.inspector.List(c.Context(), filter) {
		if err != nil {
			return err
		}
		seen++
		report(&e)
		if err := each(&e); err != nil {
			return err
		}
	}
	return nil
}

const progressInterval = 500 * time.Millisecond
