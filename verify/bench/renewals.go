package main

import (
	"errors"
	"fmt"
)

// keysGrow shows what waiting for more keys of another process costs. The last line, with the most of
// them, has targets.
func (e *env) keysGrow() (rows []row, out table, err error) {
	out.head = []string{"keys of another process waited for at once", "commands a key", "subscription connections", "memory a waiter", "release to the last return", "for each"}
	if err := e.flush(); err != nil {
		return nil, out, err
	}
	var g gathering
	for n := max(e.crowd/100, 1); n <= e.crowd; n *= 10 {
		if g, err = e.gather(n); err != nil {
			return nil, out, err
		}
		out.add(grouped(n), trimmed(g.commands), grouped(g.connections), bytesText(g.memory), span(g.woken), span(g.woken/float64(n)))
	}
	what := grouped(e.crowd) + " keys waited for in one process: "
	return []row{
		{measure: what + "subscription connections", this: grouped(g.connections), target: "1", met: judge(g.connections == 1)},
		{measure: what + "commands a key", thisCmds: trimmed(g.commands), target: "at most 4", met: judge(g.commands <= 4)},
		{
			measure: what + "memory a waiter (floor: a goroutine that has sent a bare claim)",
			floor:   bytesText(g.bare), this: bytesText(g.memory), ratio: significant(g.memory/g.bare) + " ×",
			target: "at most 3 KB", met: judge(g.memory <= 3<<10),
		},
	}, out, nil
}

// renewals watches many executions in flight: in a process of their own, whose CPU is measured.
func (e *env) renewals() (rows []row, err error) {
	if err := e.flush(); err != nil {
		return nil, err
	}
	other, err := e.child()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, other.close()) }()
	if err := other.tell("renew %d %v", e.crowd, e.window); err != nil {
		return nil, err
	}
	if err := other.expect("ready"); err != nil {
		return nil, err
	}
	var answers [4]int64 // CPU, pipelines, commands in them, time of the release
	for i := range answers {
		if answers[i], err = other.number(); err != nil {
			return nil, err
		}
	}
	share := float64(answers[0]) / float64(e.window)
	batch := float64(answers[2]) / float64(max(answers[1], 1))
	what := fmt.Sprintf("%s executions in flight for %v: ", grouped(e.crowd), e.window)
	return []row{
		{
			measure: what + "renewals in a pipeline", this: trimmed(batch),
			thisCmds: fmt.Sprintf("%s in %s round trips", grouped(int(answers[2])), grouped(int(answers[1]))),
			target:   "many", met: judge(batch >= float64(min(e.crowd, 100))),
		},
		{measure: what + "CPU of the process", this: fmt.Sprintf("%.2f %% of a core", 100*share), target: "under 2 %", met: judge(share < 0.02)},
	}, nil
}
