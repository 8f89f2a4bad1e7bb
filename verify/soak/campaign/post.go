package campaign

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/idempotent-go/idempotent/verify/soak/history"
	"github.com/idempotent-go/idempotent/verify/soak/load"
)

// A post is a place for a worker, with proxies of its own. When its worker is killed, another one
// takes its place.
type post struct {
	field  *field
	name   string
	number int
	wires  *wires

	mu     sync.Mutex // one signal at a time
	hired  int
	worker string
	cmd    *exec.Cmd
	in     io.WriteCloser
	gone   chan struct{} // closed when the process has ended
}

func (f *field) newPost(name string, number int) (*post, error) {
	p := &post{field: f, name: name, number: number}
	var err error
	p.wires, err = newWires(f.servers.data(), func(string) {
		for _, kind := range []history.Kind{history.FaultOn, history.FaultOff} {
			f.log.Append(history.Event{Kind: kind, Topology: f.name, Proc: name, Fault: "proxy replaced"})
		}
	})
	return p, err
}

func (p *post) order() load.Order {
	s := p.field.servers
	return load.Order{
		Topology: p.field.name, Proc: p.worker, Provider: p.field.provider, Seed: p.field.Seed,
		Began: p.field.began, Lease: lease, Rate: rate, NewKeys: newKeys,
		Kind: p.field.name, Addrs: s.addrs(), Master: s.master(), Proxies: p.wires.addresses(),
		Acks: s.acks(), AckWait: lease / 4, Shares: p.shares(), Cache: p.cache(),
		Operators: workers, Operator: p.number,
	}
}

// shares deals pipelines to every third worker of a post, from one that follows from the seed, where
// the library uses them: on one server, without replica acks.
func (p *post) shares() bool {
	f := p.field
	first := f.random(f.name + " shares").IntN(workers)
	return f.name != "cluster" && f.servers.acks() == 0 && (first+p.number+p.hired)%workers == 0
}

// cache deals a replay cache to every second worker of a post, from one that follows from the seed. It
// is smaller than the number of keys.
func (p *post) cache() int {
	const entries = 100
	first := p.field.random(p.field.name + " cache").IntN(2)
	return (first + p.number + p.hired) % 2 * entries
}

// hire starts a worker.
func (p *post) hire() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.start(p.order)
}

// start starts a process. The caller holds the mutex.
func (p *post) start(order func() load.Order) error {
	p.hired++
	p.worker = fmt.Sprintf("%s.%d", p.name, p.hired)
	text, err := json.Marshal(order())
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := p.field.stderr()
	if err != nil {
		return err
	}
	defer out.Close()
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), load.Env+"="+string(text))
	p.cmd.Stderr = out
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.gone = make(chan struct{})
	go p.await(p.cmd, p.worker, p.gone)
	return nil
}

// await notes the end of a worker.
func (p *post) await(cmd *exec.Cmd, worker string, gone chan struct{}) {
	defer close(gone)
	e := history.Event{Kind: history.Exit, Topology: p.field.name, Proc: worker}
	if err := cmd.Wait(); err != nil {
		e.Text = err.Error()
	}
	p.field.log.Append(e)
}

func (p *post) note(kind history.Kind) {
	p.field.log.Append(history.Event{Kind: kind, Topology: p.field.name, Proc: p.worker})
}

// kill kills the worker and hires another one.
func (p *post) kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note(history.Kill)
	if err := p.cmd.Process.Kill(); err != nil {
		return err
	}
	<-p.gone
	return p.start(p.order)
}

// pause stops the worker for a while.
func (p *post) pause(ctx context.Context, d time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note(history.Stop)
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	hold(ctx, d)
	err := p.cmd.Process.Signal(syscall.SIGCONT)
	p.note(history.Cont)
	return err
}

func (p *post) say(words string) { _, _ = io.WriteString(p.in, words) }

// patience is how long workers may take to finish the calls that are under way, and servers to agree.
const patience = time.Minute

// dismiss waits until the worker has ended. One that does not is made to say where it is.
func (p *post) dismiss(ctx context.Context) {
	select {
	case <-p.gone:
		return
	case <-ctx.Done():
	case <-time.After(patience):
	}
	p.field.leftover(p.worker, "it does not end; its goroutines are in workers.log")
	_ = p.cmd.Process.Signal(syscall.SIGQUIT)
	<-p.gone
}

func (p *post) close() {
	if p.gone != nil {
		_ = p.cmd.Process.Kill()
		<-p.gone
	}
	p.wires.close()
}
