package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/present"
)

// A group is what stats counts together.
type group struct {
	namespace string
	state     idempotent.State
}

// A count is one line of stats.
type count struct {
	Namespace string  `json:"namespace"`
	State     string  `json:"state"`
	Count     int     `json:"count"`
	Bytes     int64   `json:"bytes"`
	Oldest    float64 `json:"oldestSeconds"`

	state  idempotent.State
	oldest time.Duration
}

func (a *app) stats() *cobra.Command {
	c := &cobra.Command{
		Use:   "stats",
		Short: "Count operations and their bytes by namespace and state",
		Long:  "Count operations by namespace and state, with the bytes of their records and the age of the oldest.",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			filter, err := a.filter.filter()
			if err != nil {
				return err
			}
			counts := make(map[group]*count)
			err = a.scan(c, filter, func(e *idempotent.Entry) error {
				g := group{e.Namespace, e.State}
				n := counts[g]
				if n == nil {
					n = &count{Namespace: e.Namespace, State: e.State.String(), state: e.State}
					counts[g] = n
				}
				n.Count++
				n.Bytes += int64(e.Size)
				n.oldest = max(n.oldest, e.Age)
				n.Oldest = n.oldest.Seconds()
				return nil
			})
			if err != nil {
				return err
			}
			return a.printStats(slices.SortedFunc(maps.Values(counts), byGroup))
		},
	}
	a.filter.add(c)
	return c
}

func byGroup(x, y *count) int {
	if n := strings.Compare(x.Namespace, y.Namespace); n != 0 {
		return n
	}
	return slices.Index(states, x.state) - slices.Index(states, y.state)
}

func (a *app) printStats(counts []*count) error {
	if a.output == outputJSON {
		encoder := json.NewEncoder(a.out)
		for _, n := range counts {
			if err := encoder.Encode(n); err != nil {
				return err
			}
		}
		return nil
	}
	const stateWidth, numberWidth = 20, 10
	names := len("NAMESPACE")
	for _, n := range counts {
		names = max(names, lipgloss.Width(present.Text(n.Namespace)))
	}
	fmt.Fprintln(a.out, bold.Render(fmt.Sprintf("%-*s  %-*s  %*s  %*s  %*s", names, "NAMESPACE", stateWidth, "STATE", numberWidth, "COUNT", numberWidth, "BYTES", numberWidth, "OLDEST")))
	total := 0
	for _, n := range counts {
		total += n.Count
		oldest := span(n.oldest)
		if n.state == idempotent.StateUnreadable {
			oldest = "?"
		}
		state := coloured(n.state, fmt.Sprintf("%-*s", stateWidth, n.State))
		fmt.Fprintf(a.out, "%-*s  %s  %*d  %*s  %*s\n", names, present.Text(n.Namespace), state, numberWidth, n.Count, numberWidth, present.Size(n.Bytes), numberWidth, oldest)
	}
	_, err := fmt.Fprintf(a.out, "%d in all\n", total)
	return err
}
