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

// A batcher sends commands alone while few are under way, and in pipelines beyond that: those that
// come while one is on its way share the next. A caller then waits for a pipeline in place of a
// connection, and a hundred commands cost little more than one.
type Batcher struct {
	ctx     context.Context // for the pipelines: no caller's end is everybody's
	client  redis.UniversalClient
	Single  Processor // of commands alone
	limit   int       // how many of them may be under way
	Sending sync.WaitGroup
	tickets sync.Pool // not shared, since a test in a synctest bubble keeps its channels to itself

	mu        sync.Mutex
	alone     int
	pipelines int
	late      int // those of the pipelines that take long
	queue     []*ticket
	withdrawn int // of those, by callers who have left; half of them at most
	reply     int // the size of the largest reply of late
}

// A processor sends one command and returns when its reply is there.
type Processor interface {
	Process(ctx context.Context, cmd redis.Cmder) error
}

// A ticket is one command that travels with others.
type ticket struct {
	cmd      redis.Cmder   // nil when withdrawn
	done     chan struct{} // gets a token when the reply is there
	pipeline *pipeline     // that it goes out with, nil until then; guarded by the batcher's mutex
}

const (
	// pipelineLimit is how many commands go into one pipeline, and pipelineBytes about how many bytes
	// go out and come back with it: go-redis gives each direction one timeout.
	MaxCommands   = 1000
	pipelineBytes = 1 << 20

	// overlapAt is how many commands are worth a second pipeline while the first is on its way: one is
	// prepared, then, while the server works on the other.
	overlapAt = 32

	// lateAfter is when those who queue behind a pipeline do not wait for it any more. It may be on
	// a connection that is dead.
	lateAfter = 2 * time.Millisecond

	// maxPipelines is how many pipelines may be under way at once.
	maxPipelines = 8
)

func NewBatcher(ctx context.Context, client redis.UniversalClient, limit int) *Batcher {
	return &Batcher{ctx: ctx, client: client, Single: client, limit: limit}
}

// Process sends cmd and returns when its reply is there.
func (b *Batcher) Process(ctx context.Context, cmd redis.Cmder) error {
	t := b.enter(cmd)
	if t == nil {
		defer b.leave(cmd)
		return b.Single.Process(ctx, cmd)
	}
	select {
	case <-t.done:
	case <-ctx.Done():
		if b.withdraw(t) {
			return ctx.Err()
		}
		<-t.done
		if errors.Is(cmd.Err(), context.Canceled) { // the whole pipeline was
			return ctx.Err()
		}
	}
	t.cmd, t.pipeline = nil, nil
	b.tickets.Put(t)
	return cmd.Err()
}

// withdraw is for a caller whose context has ended. It reports whether its command will not be sent.
// A pipeline that nobody waits for any more does not wait for a connection, nor between attempts: a
// context does no more to a command that is sent alone.
func (b *Batcher) withdraw(t *ticket) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.pipeline == nil {
		t.cmd = nil
		if b.withdrawn++; b.withdrawn > len(b.queue)/2 {
			b.tidy()
		}
		return true
	}
	if t.pipeline.wanted--; t.pipeline.wanted == 0 {
		t.pipeline.cancel()
	}
	return false
}

// tidy takes what was withdrawn out of the queue.
func (b *Batcher) tidy() {
	if b.withdrawn > 0 {
		b.queue = slices.DeleteFunc(b.queue, func(t *ticket) bool { return t.cmd == nil })
		b.withdrawn = 0
	}
}

// enter admits cmd alone, or returns its ticket.
func (b *Batcher) enter(cmd redis.Cmder) *ticket {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.alone < b.limit && b.pipelines == 0 {
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

func (b *Batcher) leave(cmd redis.Cmder) {
	reply := replySize(cmd) // may wait for an AutoPipeliner that defers
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alone--
	b.reply = max(b.reply, reply)
}

// dispatch begins a pipeline with what is queued, unless that is to wait for another one.
func (b *Batcher) dispatch() {
	onTime := b.pipelines - b.late
	wanted := onTime == 0 && len(b.queue) > 0 || onTime == 1 && len(b.queue) >= overlapAt
	if wanted && b.pipelines < maxPipelines {
		b.pipelines++
		b.Sending.Go(b.send)
	}
}

func (b *Batcher) send() {
	p := b.take()
	defer p.end()
	p.exec()
}

// A pipeline is on its way.
type pipeline struct {
	batcher *Batcher
	tickets []*ticket
	ctx     context.Context
	cancel  context.CancelFunc
	err     error       // why some commands have no reply, if they have no error of their own
	timer   *time.Timer // for when it is late

	// Guarded by the batcher's mutex.
	over, late bool
	wanted     int // how many callers wait for it
}

// take makes a pipeline of what is queued by now.
func (b *Batcher) take() *pipeline {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tidy()
	n := fitting(b.queue, b.reply)
	p := &pipeline{batcher: b, tickets: b.queue[:n:n], err: ErrHookExited, wanted: n}
	b.queue = append(make([]*ticket, 0, n), b.queue[n:]...)
	for _, t := range p.tickets {
		t.pipeline = p
	}
	p.ctx, p.cancel = context.WithCancel(b.ctx)
	p.timer = time.AfterFunc(lateAfter, p.isLate)
	return p
}

// fitting is how many commands go into one pipeline, if each reply is as large as said.
func fitting(queue []*ticket, reply int) (n int) {
	for bytes := 0; n < min(len(queue), MaxCommands) && (n == 0 || bytes < pipelineBytes); n++ {
		bytes += reply + weight(queue[n].cmd)
	}
	return n
}

// weight is about how many bytes a command takes.
func weight(cmd redis.Cmder) (bytes int) {
	for _, arg := range cmd.Args() {
		if data, ok := arg.([]byte); ok {
			bytes += len(data)
		}
	}
	return bytes
}

var ErrHookExited = errors.New("a hook of the client exited the goroutine")

func (p *pipeline) exec() {
	defer rediserr.RecoverTo(&p.err)
	pipe := p.batcher.client.Pipeline()
	for _, t := range p.tickets {
		_ = pipe.Process(p.ctx, t.cmd) // sent by Exec
	}
	_, p.err = pipe.Exec(p.ctx)
}

// isLate lets others go on without this pipeline.
func (p *pipeline) isLate() {
	b := p.batcher
	b.mu.Lock()
	defer b.mu.Unlock()
	if !p.over {
		p.late = true
		b.late++
		b.dispatch()
	}
}

// end begins the next pipeline, if there is something for it, and tells the callers of this one.
func (p *pipeline) end() {
	p.timer.Stop()
	p.cancel()
	reply := 0
	for _, t := range p.tickets {
		t.cmd.SetErr(ReplyError(t.cmd, p.err))
		reply = max(reply, replySize(t.cmd))
	}
	p.leave(reply)
	for _, t := range p.tickets {
		t.done <- struct{}{}
	}
}

// replySize is how long the reply to a claim is: it may hold a record.
func replySize(cmd redis.Cmder) int {
	raw, ok := cmd.(*redis.RawCmd)
	if !ok {
		return 0
	}
	return len(raw.Val())
}

// errorIn is the error of a command in a pipeline: that of the pipeline where it has neither a reply nor
// an error, since a hook that sends nothing says so to Exec alone.
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

func (p *pipeline) leave(reply int) {
	b := p.batcher
	b.mu.Lock()
	defer b.mu.Unlock()
	p.over = true
	if p.late {
		b.late--
	}
	b.pipelines--
	b.reply = max(reply, b.reply/2)
	b.dispatch()
}
