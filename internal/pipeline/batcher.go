// Package pipeline owns how the commands of many callers share pipelines. It never looks into a
// command beyond its size, never retries one, and never decides what a reply means.
package pipeline

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent/internal/rediserr"
)

// A Batcher sends commands alone while few are in flight, and in pipelines beyond that: commands that
// arrive while a pipeline is in flight share the next one. A caller then waits for a pipeline instead
// of a connection. At 128 goroutines this makes replays about three times as fast, at a third of the
// CPU; a single goroutine never meets it.
type Batcher struct {
	ctx     context.Context // of the pipelines: one caller's end must not end the others' commands
	client  redis.UniversalClient
	limit   int // how many commands may be in flight alone
	sending sync.WaitGroup
	tickets sync.Pool // of this batcher alone, because channels must not leave a synctest bubble

	mu        sync.Mutex
	alone     int
	pipelines int
	late      int // pipelines that have taken longer than lateAfter
	queue     []*ticket
}

// A Processor sends one command and returns when its reply has arrived.
type Processor interface {
	Process(ctx context.Context, cmd redis.Cmder) error
}

// A ticket is one command in a shared pipeline.
type ticket struct {
	cmd      redis.Cmder   // nil if its caller has left before it was sent
	done     chan struct{} // receives when the reply has arrived
	pipeline *pipeline     // nil until it is sent; guarded by the batcher's mutex
}

const (
	// MaxCommands bounds a pipeline, because go-redis gives all its replies one ReadTimeout: 200
	// replies of 64 KiB are 13 MB.
	MaxCommands = 200

	// maxBytes bounds what one pipeline sends, under one WriteTimeout.
	maxBytes = 1 << 20

	// sharedSize is the largest command, in bytes, that shares a pipeline. A server that refuses a
	// larger one (proto-max-bulk-len) closes the connection, and with it the other callers' commands.
	sharedSize = 64 << 10

	// lateAfter is how long queued commands wait for the pipeline before them: its connection may be
	// dead.
	lateAfter = 2 * time.Millisecond

	// maxPipelines is how many pipelines may be in flight at once, late ones included.
	maxPipelines = 8
)

// ErrHookExited: a hook of the client ended the goroutine that sent the pipeline.
var ErrHookExited = errors.New("a hook of the client exited the goroutine")

// NewBatcher returns a Batcher that sends up to limit commands alone at once. ctx ends its pipelines.
func NewBatcher(ctx context.Context, client redis.UniversalClient, limit int) *Batcher {
	return &Batcher{ctx: ctx, client: client, limit: limit}
}

// Process sends cmd and returns when its reply has arrived, or with the error of ctx if that ends
// before the command is sent.
func (b *Batcher) Process(ctx context.Context, cmd redis.Cmder) error {
	t := b.enter(cmd)
	if t == nil {
		defer b.leave()
		return b.client.Process(ctx, cmd)
	}
	select {
	case <-t.done:
	case <-ctx.Done():
		if b.withdraw(t) {
			return ctx.Err()
		}
		<-t.done // it was sent: only its reply says what it did
		if errors.Is(cmd.Err(), context.Canceled) {
			return ctx.Err() // every caller had left, which cancelled the pipeline
		}
	}
	t.cmd, t.pipeline = nil, nil
	b.tickets.Put(t)
	return cmd.Err()
}

// Wait returns when no pipeline is in flight. No Process may be in flight either.
func (b *Batcher) Wait() { b.sending.Wait() }

// enter admits cmd alone, or queues it and returns its ticket.
func (b *Batcher) enter(cmd redis.Cmder) *ticket {
	large := size(cmd) > sharedSize
	b.mu.Lock()
	defer b.mu.Unlock()
	if large || b.alone < b.limit && b.pipelines == 0 {
		b.alone++
		return nil
	}
	t, ok := b.tickets.Get().(*ticket)
	if !ok {
		t = &ticket{done: make(chan struct{}, 1)}
	}
	t.cmd = cmd
	b.queue = append(b.queue, t)
	b.dispatch()
	return t
}

func (b *Batcher) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alone--
}

// withdraw takes a caller whose context has ended out of the queue, and reports whether its command
// will not be sent. A pipeline whose callers have all left is cancelled: it then waits neither for a
// connection nor between retries, as a command sent alone would not.
func (b *Batcher) withdraw(t *ticket) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.pipeline == nil {
		t.cmd = nil // skipped when the queue is sent
		return true
	}
	if t.pipeline.waiting--; t.pipeline.waiting == 0 {
		t.pipeline.cancel()
	}
	return false
}

// dispatch sends what is queued, unless a pipeline that is not late is in flight: what arrives until
// that returns shares the next one. The caller holds the mutex.
func (b *Batcher) dispatch() {
	if b.pipelines == b.late && b.pipelines < maxPipelines && len(b.queue) > 0 {
		b.pipelines++
		b.sending.Go(b.send)
	}
}

func (b *Batcher) send() {
	p := b.take()
	defer p.end()
	p.exec()
}

// A pipeline is a group of commands in flight.
type pipeline struct {
	batcher *Batcher
	tickets []*ticket
	ctx     context.Context
	cancel  context.CancelFunc
	err     error       // of the commands that have neither a reply nor an error of their own
	timer   *time.Timer // marks it late

	// Guarded by the batcher's mutex.
	over, late bool
	waiting    int // how many callers still wait for it
}

// take makes a pipeline of the front of the queue.
func (b *Batcher) take() *pipeline {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := fitting(b.queue)
	tickets := slices.DeleteFunc(b.queue[:n:n], func(t *ticket) bool { return t.cmd == nil })
	b.queue = append(make([]*ticket, 0, n), b.queue[n:]...)
	p := &pipeline{batcher: b, tickets: tickets, err: ErrHookExited, waiting: len(tickets)}
	for _, t := range p.tickets {
		t.pipeline = p
	}
	p.ctx, p.cancel = context.WithCancel(b.ctx)
	p.timer = time.AfterFunc(lateAfter, p.markLate)
	return p
}

// fitting returns how many tickets from the front of the queue go into one pipeline.
func fitting(queue []*ticket) (n int) {
	for bytes := 0; n < min(len(queue), MaxCommands) && bytes < maxBytes; n++ {
		if cmd := queue[n].cmd; cmd != nil {
			bytes += size(cmd)
		}
	}
	return n
}

// size returns about how many bytes a command takes: records are its only long arguments.
func size(cmd redis.Cmder) (bytes int) {
	for _, arg := range cmd.Args() {
		if data, ok := arg.([]byte); ok {
			bytes += len(data)
		}
	}
	return bytes
}

func (p *pipeline) exec() {
	defer rediserr.RecoverTo(&p.err)
	pipe := p.batcher.client.Pipeline()
	for _, t := range p.tickets {
		_ = pipe.Process(p.ctx, t.cmd) // sent by Exec
	}
	_, p.err = pipe.Exec(p.ctx)
}

// markLate lets the queued commands go without this pipeline's return.
func (p *pipeline) markLate() {
	b := p.batcher
	b.mu.Lock()
	defer b.mu.Unlock()
	if !p.over {
		p.late = true
		b.late++
		b.dispatch()
	}
}

// end starts the next pipeline, if there is something to send, and wakes the callers of this one. It
// runs also when a hook exits the goroutine.
func (p *pipeline) end() {
	p.timer.Stop()
	p.cancel()
	for _, t := range p.tickets {
		t.cmd.SetErr(ReplyError(t.cmd, p.err))
	}
	p.leave()
	for _, t := range p.tickets {
		t.done <- struct{}{}
	}
}

func (p *pipeline) leave() {
	b := p.batcher
	b.mu.Lock()
	defer b.mu.Unlock()
	p.over = true
	if p.late {
		b.late--
	}
	b.pipelines--
	b.dispatch()
}

// ReplyError returns the error of a command that was sent in a pipeline: the pipeline's where the
// command has neither a reply nor an error, since a hook that sends nothing says so to Exec alone.
func ReplyError(cmd redis.Cmder, pipeline error) error {
	if unanswered(cmd) {
		return pipeline
	}
	return cmd.Err()
}

// unanswered reports whether a command has neither a reply nor an error.
func unanswered(cmd redis.Cmder) bool {
	switch c := cmd.(type) {
	case *redis.RawCmd:
		return c.Err() == nil && len(c.Val()) == 0
	case *redis.Cmd:
		return c.Err() == nil && c.Val() == nil
	}
	return false
}
