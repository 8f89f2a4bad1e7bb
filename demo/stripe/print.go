package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

func (d *demo) introduce(redis, stripe string) {
	d.out.Print(`idempotent: a customer is charged once

   Redis    %s
   Stripe   %s
   workers  %d processes: pids %s
`, redis, stripe, len(d.fleet.Fleet), d.fleet.PIDs())
}

const row = "   %-53s %-17s %-16s %s\n"

// summarize says what callers got and how, in one line for each thing that they got.
func summarize(outcomes []outcome) (lines []string) {
	counts := make(map[string]map[string]int)
	for _, o := range outcomes {
		what := o.what()
		if counts[what] == nil {
			counts[what] = make(map[string]int)
		}
		counts[what][o.how()]++
	}
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		total := 0
		var how []string
		for _, name := range slices.Sorted(maps.Keys(counts[what])) {
			n := counts[what][name]
			total += n
			how = append(how, fmt.Sprintf("%d %s", n, name))
		}
		lines = append(lines, fmt.Sprintf("%d calls got %s (%s)", total, what, strings.Join(how, ", ")))
	}
	return lines
}

// what says what a caller got.
func (o outcome) what() string {
	switch {
	case o.Error == "":
		return o.Charge.Intent
	case o.Stripe != nil:
		return fmt.Sprintf("*stripe.Error %d %s, %s", o.Stripe.Status, o.Stripe.Code, o.Stripe.Request)
	case len(o.Error) > 60:
		return o.Error[:60] + "..."
	}
	return o.Error
}

// how says where that came from.
func (o outcome) how() string {
	if o.Source == 0 {
		return "without an outcome"
	}
	return o.Source.String()
}
