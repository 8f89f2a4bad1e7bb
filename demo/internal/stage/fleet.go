package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The parent writes to a worker's standard input, and reads from its standard output: one JSON value
// on each line, both ways. The first is the setup, which is not in the arguments, where a password
// could be seen. Then come requests, and the worker's events and answers.

type request[T any] struct {
	ID   int
	Task T
}

// A message is an event, or the answer to the request with that ID.
type message[E, A any] struct {
	ID     int `json:",omitempty"`
	Event  *E  `json:",omitempty"`
	Answer A
}

// ErrGone: the worker's process has ended.
var ErrGone = errors.New("the process is gone")

// A Worker is a child that does tasks, as the parent sees it. It tells of events of type E, and
// answers tasks with an A.
type Worker[E, A any] struct {
	*Child
	Number int
	role   string

	mu      sync.Mutex
	out     *json.Encoder
	lastID  int
	waiting map[int]chan<- A
}

// Start starts this program in that role, its first argument, and gives it its setup. hear gets its
// events, one after the other.
func Start[E, A any](role string, number int, setup any, hear func(number int, event E)) (*Worker[E, A], error) {
	cmd, err := Self(role)
	if err != nil {
		return nil, err
	}
	w := &Worker[E, A]{Number: number, role: role, waiting: make(map[int]chan<- A)}
	w.Child, err = StartChild(cmd, func(stdout io.Reader) { w.listen(stdout, hear) })
	if err != nil {
		return nil, err
	}
	w.out = json.NewEncoder(w.stdin)
	if err := w.out.Encode(setup); err != nil {
		w.Kill()
		return nil, err
	}
	return w, nil
}

// listen passes on what the worker says, until it says no more.
func (w *Worker[E, A]) listen(stdout io.Reader, hear func(int, E)) {
	messages := json.NewDecoder(stdout)
	for {
		var m message[E, A]
		if messages.Decode(&m) != nil {
			return
		}
		if m.Event != nil {
			hear(w.Number, *m.Event)
			continue
		}
		w.take(m.ID) <- m.Answer
	}
}

// Ask gives the worker a task and waits for the answer.
func (w *Worker[E, A]) Ask(ctx context.Context, task any) (answer A, err error) {
	got := make(chan A, 1)
	if err := w.give(task, got); err != nil {
		return answer, fmt.Errorf("%s %d: %w: %w", w.role, w.Number, ErrGone, err)
	}
	select {
	case answer = <-got:
		return answer, nil
	case <-w.Gone:
		return answer, fmt.Errorf("%s %d: %w", w.role, w.Number, ErrGone)
	case <-ctx.Done():
		return answer, fmt.Errorf("%s %d has not answered: %w", w.role, w.Number, context.Cause(ctx))
	}
}

func (w *Worker[E, A]) give(task any, got chan<- A) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lastID++
	w.waiting[w.lastID] = got
	return w.out.Encode(request[any]{w.lastID, task})
}

// take returns where the answer with that ID goes.
func (w *Worker[E, A]) take(id int) chan<- A {
	w.mu.Lock()
	defer w.mu.Unlock()
	got, ok := w.waiting[id]
	if !ok { // nobody asked: drop it
		return make(chan A, 1)
	}
	delete(w.waiting, id)
	return got
}

// A Fleet is some workers.
type Fleet[E, A any] []*Worker[E, A]

// Ask gives every worker the same task at the same time, and returns their answers in their order.
// heard, if not nil, gets each answer as it comes, from several goroutines. A worker that was killed
// has a zero answer; another one that does not answer is an error.
func (f Fleet[E, A]) Ask(ctx context.Context, task any, heard func(w *Worker[E, A], answer A)) ([]A, error) {
	answers := make([]A, len(f))
	errs := make([]error, len(f))
	var asking sync.WaitGroup
	for i, w := range f {
		asking.Go(func() {
			answers[i], errs[i] = w.Ask(ctx, task)
			switch {
			case w.Killed() && errors.Is(errs[i], ErrGone):
				errs[i] = nil
			case errs[i] == nil && heard != nil:
				heard(w, answers[i])
			}
		})
	}
	asking.Wait()
	return answers, errors.Join(errs...)
}

// PIDs lists the numbers of the processes, for the audience.
func (f Fleet[E, A]) PIDs() string {
	pids := make([]string, len(f))
	for i, w := range f {
		pids[i] = strconv.Itoa(w.PID())
	}
	return strings.Join(pids, ", ")
}

// Stop lets all workers finish, for a moment.
func (f Fleet[E, A]) Stop(patience time.Duration) {
	var stopping sync.WaitGroup
	for _, w := range f {
		stopping.Go(func() { w.Stop(patience) })
	}
	stopping.Wait()
}
