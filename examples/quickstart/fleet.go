package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A fleet is the worker processes.
type fleet struct{ processes []*process }

// errGone: the worker's process has ended.
var errGone = errors.New("the process is gone")

// startFleet starts the workers and returns once all of them have reached Redis.
func startFleet(ctx context.Context, s setup, observe func(worker int, e event)) (*fleet, error) {
	f := &fleet{}
	for number := 1; number <= workers; number++ {
		s.Worker = number
		p, err := startProcess(s, observe)
		if err != nil {
			f.stop()
			return nil, fmt.Errorf("starting worker %d: %w", number, err)
		}
		f.processes = append(f.processes, p)
	}
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	if _, err := f.ask(ctx, task{}, nil); err != nil {
		f.stop()
		return nil, err
	}
	return f, nil
}

// ask gives every worker the same task at the same time, and returns their answers in their order.
// heard, if not nil, gets each answer as it comes. The answer of a worker that was killed is nil;
// another one that does not answer is an error.
func (f *fleet) ask(ctx context.Context, t task, heard func(*process, *answer)) ([]*answer, error) {
	answers := make([]*answer, len(f.processes))
	errs := make([]error, len(f.processes))
	var asking sync.WaitGroup
	for i, p := range f.processes {
		asking.Go(func() {
			answers[i], errs[i] = p.ask(ctx, t)
			if p.killed.Load() && errors.Is(errs[i], errGone) {
				errs[i] = nil
			}
			if heard != nil && answers[i] != nil {
				heard(p, answers[i])
			}
		})
	}
	asking.Wait()
	return answers, errors.Join(errs...)
}

// commands returns how many commands each worker has sent to Redis since it started, nil for one
// that was killed. It waits for a moment of silence: the last UNSUBSCRIBE follows the return of Run.
func (f *fleet) commands(ctx context.Context) ([]commands, error) {
	var before []commands
	for {
		answers, err := f.ask(ctx, task{}, nil)
		if err != nil {
			return nil, err
		}
		now := make([]commands, len(answers))
		for i, a := range answers {
			if a != nil {
				now[i] = a.Commands
			}
		}
		if slices.EqualFunc(before, now, maps.Equal) {
			return now, nil
		}
		before = now
		sleep(ctx, 50*time.Millisecond)
	}
}

func (f *fleet) stop() {
	var stopping sync.WaitGroup
	for _, p := range f.processes {
		stopping.Go(p.stop)
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
	waiting map[int]chan<- *answer
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
		waiting: make(map[int]chan<- *answer),
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
		}
		if m.Answer != nil {
			p.take(m.ID) <- m.Answer
		}
	}
}

// ask gives the worker a task and waits for the answer.
func (p *process) ask(ctx context.Context, t task) (*answer, error) {
	got := make(chan *answer, 1)
	if err := p.give(t, got); err != nil {
		return nil, fmt.Errorf("worker %d: %w: %w", p.number, errGone, err)
	}
	select {
	case a := <-got:
		return a, nil
	case <-p.gone:
		return nil, fmt.Errorf("worker %d: %w", p.number, errGone)
	case <-ctx.Done():
		return nil, fmt.Errorf("worker %d has not answered: %w", p.number, context.Cause(ctx))
	}
}

func (p *process) give(t task, got chan<- *answer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastID++
	t.ID = p.lastID
	p.waiting[t.ID] = got
	return p.tasks.Encode(t)
}

// take returns where the answer with that ID goes.
func (p *process) take(id int) chan<- *answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	got, ok := p.waiting[id]
	if !ok { // nobody asked: drop it
		return make(chan *answer, 1)
	}
	delete(p.waiting, id)
	return got
}

func (p *process) pid() int { return p.cmd.Process.Pid }

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
