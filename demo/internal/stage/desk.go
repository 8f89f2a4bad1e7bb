package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"sync"

	"github.com/redis/go-redis/v9/logging"
)

// A Desk is where a worker's process takes its tasks, and its line to the parent.
type Desk struct {
	in *json.Decoder

	mu  sync.Mutex
	out *json.Encoder
}

// WorkerProcess is a whole worker: it reads its setup and works, and returns the exit status.
func WorkerProcess[S any](role string, work func(setup S, desk *Desk) error) int {
	signal.Ignore(os.Interrupt) // Ctrl-C reaches the whole group: the parent decides what happens
	log.SetFlags(0)
	logging.Disable() // of go-redis: what goes wrong is in the errors
	if err := attend(os.Stdin, os.Stdout, work); err != nil {
		log.Printf("%s: %v", role, err)
		return 1
	}
	return 0
}

func attend[S any](in io.Reader, out io.Writer, work func(setup S, desk *Desk) error) error {
	d := &Desk{in: json.NewDecoder(in), out: json.NewEncoder(out)}
	var setup S
	if err := d.in.Decode(&setup); err != nil {
		return fmt.Errorf("reading the setup: %w", err)
	}
	return work(setup, d)
}

// Tell tells the parent of an event.
func (d *Desk) Tell(event any) { d.send(message[any, any]{Event: &event}) }

// send fails only when the parent is gone, and then standard input ends as well.
func (d *Desk) send(m message[any, any]) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.out.Encode(m)
}

// Serve does the tasks, each in a goroutine of its own, until standard input ends, as it does when
// the parent dies.
func Serve[T, A any](d *Desk, do func(ctx context.Context, task T) A) error {
	ctx, cancel := context.WithCancel(context.Background())
	var busy sync.WaitGroup
	defer busy.Wait()
	defer cancel()
	for {
		var r request[T]
		err := d.in.Decode(&r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a task: %w", err)
		}
		busy.Go(func() { d.send(message[any, any]{ID: r.ID, Answer: do(ctx, r.Task)}) })
	}
}
