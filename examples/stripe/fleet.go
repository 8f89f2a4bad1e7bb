package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// A fleet is the worker processes.
type fleet struct {
	setup     setup
	observe   func(worker int, e event)
	processes []*process
}

// errGone: the worker's process has ended.
var errGone = errors.New("the process is gone")

func startFleet(s setup, observe func(worker int, e event)) (*fleet, error) {
	f := &fleet{setup: s, observe: observe, processes: make([]*process, workers)}
	if err := f.complete(); err != nil {
		f.stop()
		return nil, err
	}
	return f, nil
}

// complete starts the workers that are missing, as whatever runs a service does.
func (f *fleet) complete() error {
	for i, p := range f.processes {
		if p != nil && !p.killed.Load() {
			continue
		}
		if p != nil {
			p.stop()
		}
		s := f.setup
		s.Worker = i + 1
		p, err := startProcess(s, f.observe)
		if err != nil {
			return fmt.Errorf("starting worker %d: %w", s.Worker, err)
		}
		f.processes[i] = p
	}
	return nil
}

// ask gives every worker the same task at the same time, and returns what all callers got. A worker
// that was killed has none; another one that does not answer is an error.
func (f *fleet) ask(ctx context.Context, t task) (all []outcome, err error) {
	got := make([][]outcome, len(f.processes))
	errs := make([]error, len(f.processes))
	var asking sync.WaitGroup
	for i, p := range f.processes {
		asking.Go(func() {
			got[i], errs[i] = p.ask(ctx, t)
			if p.killed.Load() && errors.Is(errs[i], errGone) {
				errs[i] = nil
			}
		})
	}
	asking.Wait()
	for _, outcomes := range got {
		all = append(all, outcomes...)
	}
	return all, errors.Join(errs...)
}

func (f *fleet) stop() {
	var stopping sync.WaitGroup
	for _, p := range f.processes {
		if p != nil {
			stopping.Go(p.stop)
		}
	}
	stopping.Wait()
}

// A process is one worker process, as the parent sees it.
type process struct {
	number int
	cmd    *exec.Cmd
	stdin  io.Closer
	gone   chan struct{}
	killed atomic.Bool

	mu      sync.Mutex
	tasks   *json.Encoder
	lastID  int
	waiting map[int]chan<- []outcome
}

func startProcess(s setup, observe func(worker int, e event)) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{
		number:  s.Worker,
		cmd:     exec.Command(self, roleWorker),
		gone:    make(chan struct{}),
		waiting: make(map[int]chan<- []outcome),
	}
	p.cmd.Stderr = os.Stderr
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.stdin, p.tasks = stdin, json.NewEncoder(stdin)
	go p.listen(stdout, observe)
	if err := p.tasks.Encode(s); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// listen passes on what the worker says, until it says no more.
func (p *process) listen(stdout io.Reader, observe func(worker int, e event)) {
	defer close(p.gone)
	messages := json.NewDecoder(stdout)
	for {
		var m message
		if messages.Decode(&m) != nil {
			_, _ = io.Copy(io.Discard, stdout)
			_ = p.cmd.Wait()
			return
		}
		if m.Event != nil {
			observe(p.number, *m.Event)
			continue
		}
		p.take(m.ID) <- m.Outcomes
	}
}

// ask gives the worker a task and waits for the answer.
func (p *process) ask(ctx context.Context, t task) ([]outcome, error) {
	got := make(chan []outcome, 1)
	if err := p.give(t, got); err != nil {
		return nil, fmt.Errorf("worker %d: %w: %w", p.number, errGone, err)
	}
	select {
	case outcomes := <-got:
		return outcomes, nil
	case <-p.gone:
		return nil, fmt.Errorf("worker %d: %w", p.number, errGone)
	case <-ctx.Done():
		return nil, fmt.Errorf("worker %d has not answered: %w", p.number, context.Cause(ctx))
	}
}

func (p *process) give(t task, got chan<- []outcome) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastID++
	t.ID = p.lastID
	p.waiting[t.ID] = got
	return p.tasks.Encode(t)
}

// take returns where the answer with that ID goes.
func (p *process) take(id int) chan<- []outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	got, ok := p.waiting[id]
	if !ok { // nobody asked: drop it
		return make(chan []outcome, 1)
	}
	delete(p.waiting, id)
	return got
}

// kill is SIGKILL: the process gets no chance to say or to tidy up anything.
func (p *process) kill() {
	p.killed.Store(true)
	_ = p.cmd.Process.Kill()
}

// stop lets the worker finish, for a moment.
func (p *process) stop() {
	_ = p.stdin.Close()
	select {
	case <-p.gone:
	case <-time.After(2 * time.Second):
		p.kill()
		<-p.gone
	}
}
