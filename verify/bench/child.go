package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"github.com/idempotent-go/idempotent"
)

// The program runs itself as another process: with this variable set to the server's address, it
// does as it is told, line by line on its standard input, and answers on its standard output.
const childVariable = "IDEMPOTENT_BENCH_CHILD"

// now is the clock that all processes of a machine share.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // there is such a clock
	}
	return t.Nano()
}

// A child is the other process as this one sees it.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func (e *env) child() (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self)}
	c.cmd.Env = append(os.Environ(), childVariable+"="+e.server.Addr())
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewScanner(out)
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	return c, nil
}

// close ends the process: its standard input is at its end.
func (c *child) close() error { return errors.Join(c.in.Close(), c.cmd.Wait()) }

func (c *child) tell(format string, args ...any) error {
	_, err := fmt.Fprintf(c.in, format+"\n", args...)
	return err
}

func (c *child) hear() (string, error) {
	if !c.out.Scan() {
		return "", errors.Join(errors.New("the other process has ended"), c.out.Err())
	}
	return c.out.Text(), nil
}

func (c *child) expect(word string) error {
	got, err := c.hear()
	if err == nil && got != word {
		err = fmt.Errorf("the other process says %q, not %q", got, word)
	}
	return err
}

// number is an answer that is one.
func (c *child) number() (int64, error) {
	got, err := c.hear()
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(got, 10, 64)
}

// A role is the other process from inside.
type role struct {
	client   *redis.Client
	executor *idempotent.Executor[string]
	heard    *pipelineCounter
	peers    map[string]handRolled
	sub      *redis.PubSub
	held     *held
}

// childMain is the main function of the other process.
func childMain(addr string) error {
	r := &role{client: redis.NewClient(&redis.Options{Addr: addr}), heard: &pipelineCounter{}}
	defer r.client.Close()
	r.client.AddHook(r.heard)
	var err error
	// A lease that outlasts every measure but that of renewals, which asks for its own.
	if r.executor, err = idempotent.New[string](r.client, "default", idempotent.WithLease(10*time.Minute), idempotent.WithWaitTimeout(10*time.Minute)); err != nil {
		return err
	}
	defer r.executor.Close()
	r.sub = r.client.Subscribe(context.Background())
	defer r.sub.Close()
	r.peers = map[string]handRolled{"redislock": withRedislock(r.client), "redsync": withRedsync(r.client)}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		verb, arg, _ := strings.Cut(in.Text(), " ")
		if err := r.do(verb, arg); err != nil {
			return fmt.Errorf("%s: %w", in.Text(), err)
		}
	}
	return nil
}

func (r *role) do(verb, arg string) error {
	ctx := context.Background()
	switch verb {
	case "hear":
		return r.hear(ctx, arg)
	case "run":
		_, err := r.executor.Run(ctx, arg, mustNotRun)
		fmt.Println(now())
		return err
	case "redislock", "redsync":
		_, err := r.peers[verb].run(ctx, arg, mustNotRun)
		fmt.Println(now())
		return err
	case "hold":
		return r.hold(r.executor, arg)
	case "release":
		return r.release()
	case "renew":
		return r.renew(arg)
	}
	return errors.New("nobody knows what that means")
}

// hear says when a message came on a channel.
func (r *role) hear(ctx context.Context, channel string) error {
	if err := r.sub.Subscribe(ctx, channel); err != nil {
		return err
	}
	for {
		message, err := r.sub.Receive(ctx)
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case *redis.Subscription:
			if m.Kind == "subscribe" {
				fmt.Println("ready")
			}
		case *redis.Message:
			fmt.Println(now())
			return r.sub.Unsubscribe(ctx, channel)
		}
	}
}
