package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"github.com/idempotent-go/idempotent"
)

// held are executions under way until they are released.
type held struct {
	goOn    chan struct{}
	running sync.WaitGroup
	failed  atomic.Pointer[error]
}

func heldKey(i int) string { return "held-" + strconv.Itoa(i) }

func heldNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = keyPrefix + heldKey(i)
	}
	return names
}

// hold begins as many executions as number says, and answers when all of them run.
func (r *role) hold(x *idempotent.Executor[string], number string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	h := &held{goOn: make(chan struct{})}
	var begun sync.WaitGroup
	begun.Add(n)
	for i := range n {
		h.running.Go(func() {
			_, err := x.Run(context.Background(), heldKey(i), func(context.Context) (string, error) {
				begun.Done()
				<-h.goOn
				return value, nil
			})
			if err != nil {
				h.failed.Store(&err)
			}
		})
	}
	begun.Wait()
	r.held = h
	fmt.Println("ready")
	return nil
}

// release lets them end, and answers with the time at which it did.
func (r *role) release() error {
	at := now()
	close(r.held.goOn)
	r.held.running.Wait()
	if err := r.held.failed.Load(); err != nil {
		return *err
	}
	fmt.Println(at)
	return nil
}

// renew holds executions with the default lease for a while, and answers what that took of this
// process: the nanoseconds of CPU, the pipelines, and the commands in them.
func (r *role) renew(arg string) error {
	number, length, _ := strings.Cut(arg, " ")
	window, err := time.ParseDuration(length)
	if err != nil {
		return err
	}
	x, err := idempotent.New[string](r.client, "default")
	if err != nil {
		return err
	}
	defer x.Close()
	if err := r.hold(x, number); err != nil {
		return err
	}
	runtime.GC() // what the beginning left behind
	pipelines, commands := r.heard.pipelines.Load(), r.heard.commands.Load()
	began, err := cpuTime()
	if err != nil {
		return err
	}
	time.Sleep(window)
	ended, err := cpuTime()
	if err != nil {
		return err
	}
	fmt.Println(ended - began)
	fmt.Println(r.heard.pipelines.Load() - pipelines)
	fmt.Println(r.heard.commands.Load() - commands)
	return r.release()
}

// cpuTime is what this process has used of all cores, in nanoseconds.
func cpuTime() (int64, error) {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0, err
	}
	return used.Utime.Nano() + used.Stime.Nano(), nil
}

// A pipelineCounter is a hook that counts pipelines and what is in them.
type pipelineCounter struct{ pipelines, commands atomic.Int64 }

func (*pipelineCounter) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (*pipelineCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (c *pipelineCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.pipelines.Add(1)
		c.commands.Add(int64(len(cmds)))
		return next(ctx, cmds)
	}
}

var errCrowd = errors.New("somebody in the crowd did not get the outcome")
