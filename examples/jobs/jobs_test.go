package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// program is the demo, built.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "jobs-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "jobs")
		args := []string{"build", "-o", program}
		if raceEnabled() {
			args = append(args, "-race")
		}
		if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s\n%v\n", out, err)
			return 1
		}
		return m.Run()
	}())
}

func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

const (
	demoLimit = time.Minute
	leftLimit = 20 * time.Second
)

// demoCommand is the demo on the Redis that redisURL names; "" lets it find one.
func demoCommand(ctx context.Context, redisURL string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program)
	// The children write to the same standard error. So Wait waits for them too, and it is an
	// error if one of them is still there after this.
	cmd.WaitDelay = leftLimit
	cmd.Env = append(os.Environ(), "REDIS_URL="+redisURL)
	return cmd
}

func runDemoProgram(t *testing.T, redisURL string) (out string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), demoLimit)
	defer cancel()
	raw, err := demoCommand(ctx, redisURL).CombinedOutput()
	t.Logf("%s", raw)
	return string(raw), err
}

// The demo on what there is: redis-server or, without one, miniredis.
func TestDemo(t *testing.T) {
	t.Parallel()
	out, err := runDemoProgram(t, "")
	require.NoError(t, err)
	assertAllHolds(t, out)
	assertNoServerLeft(t, out)
}

// The demo leaves alone what it finds, and removes its queue. Its receipts go away by themselves.
func TestDemoWithGivenRedis(t *testing.T) {
	t.Parallel()
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true)
	require.NoError(t, server.Start())
	defer server.Close()
	require.NoError(t, server.Set("asynq:{default}:t:1", "somebody else's"))

	out, err := runDemoProgram(t, "redis://"+server.Addr())
	require.NoError(t, err)
	assert.Contains(t, out, server.Addr()+", named by REDIS_URL")
	assertAllHolds(t, out)
	server.CheckGet(t, "asynq:{default}:t:1", "somebody else's")
	for _, key := range server.Keys() {
		assert.Regexp(t, `^(asynq:\{default\}:t:1|idempotent:jobs-[a-z0-9]+:[0-9a-f]{64}|asynq:(servers|workers)(:.*)?)$`, key)
	}
	server.FastForward(keep)
	assert.LessOrEqual(t, len(server.Keys()), 3, server.Keys())
}

func TestDemoFailsWithoutRedis(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := listener.Addr().String()
	require.NoError(t, listener.Close())
	out, err := runDemoProgram(t, "redis://:secret@"+addr)
	assertFailed(t, err)
	assert.Contains(t, out, "FAILED: the Redis that REDIS_URL names, at "+addr+", does not answer")
	assert.NotContains(t, out, "secret")
}

// A Redis that goes away in the middle fails the demo; it does not hang it.
func TestDemoFailsWhenRedisGoesAway(t *testing.T) {
	t.Parallel()
	server := miniredis.NewMiniRedis()
	require.NoError(t, server.Start())
	defer server.Close()
	d := startDemoProgram(t, "redis://"+server.Addr())
	server.Close()
	out, err := d.wait(t)
	assertFailed(t, err)
	assert.Contains(t, out, "FAILED")
}

// Interrupted or killed, the demo leaves no process behind.
func TestDemoLeavesNothingBehind(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
		t.Run(sig.String(), func(t *testing.T) {
			d := startDemoProgram(t, "")
			require.NoError(t, d.cmd.Process.Signal(sig))
			out, err := d.wait(t)
			assertFailed(t, err)
			if sig != os.Kill {
				assert.Contains(t, out, "FAILED: stopped: ")
			}
			assertNoServerLeft(t, out)
		})
	}
}

// keyLines is what a visitor must be able to read.
var keyLines = []string{
	`1\. Asynq alone`,
	`refunds paid: this is what goes wrong +2 +2 +ok`,
	`2\. The same job delivered twice`,
	`deliveries that ran fn / waited / had it replayed +1 / 1 / 1 +1 / 1 / 1 +ok`,
	`3\. A worker killed in the middle`,
	`parent: SIGKILL for worker \d, pid \d+`,
	`worker \d owns the key and runs fn, attempt 2`,
	`bank: worker \d asks whether it was paid: yes, as rf_4`,
	`asynq's reason: asynq: task lease expired +true +true +ok`,
	`4\. A timeout after the effect`,
	`asynq's reason: context deadline exceeded +true +true +ok`,
	`5\. A connection broken after the effect`,
	`asynq's reason: EOF +true +true +ok`,
	`6\. A bank down for a moment`,
	`executions of fn, by attempt +1 1 1 +1 1 1 +ok`,
	`7\. A refund refused for good`,
	`how asynq ends +2 archived +2 archived +ok`,
	`8\. A result for whoever asks`,
	`what the visitors were told +404 202 200 200 200 +404 202 200 200 200 +ok`,
	`All 62 checks hold\.`,
}

func assertAllHolds(t *testing.T, out string) {
	t.Helper()
	for _, text := range keyLines {
		assert.Regexp(t, text, out)
	}
	assert.Equal(t, 6, len(regexp.MustCompile(`refunds paid +1 +1 +ok`).FindAllString(out, -1)))
	assert.NotContains(t, out, "FAILED")
	for text := range strings.Lines(out) {
		assert.LessOrEqual(t, len(text), 101, text)
	}
}

func assertFailed(t *testing.T, err error) {
	t.Helper()
	exit, ok := errors.AsType[*exec.ExitError](err)
	require.True(t, ok, "%v", err)
	require.NotZero(t, exit.ExitCode())
}

var startedAddr = regexp.MustCompile(`Redis +\S+.*? at (127\.0\.0\.1:\d+)`)

// assertNoServerLeft makes sure that the Redis of a run is gone. After a kill that takes a moment.
func assertNoServerLeft(t *testing.T, out string) {
	t.Helper()
	addr := startedAddr.FindStringSubmatch(out)
	require.NotNil(t, addr, "the demo names its Redis")
	assert.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", addr[1])
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, leftLimit, 10*time.Millisecond, "the Redis is still there")
}

// A transcript is what the demo prints.
type transcript struct {
	text  bytes.Buffer // to be read once the demo has ended
	awake string
	seen  chan struct{} // closed at the text awaited
}

func (s *transcript) Write(b []byte) (int, error) {
	s.text.Write(b)
	if s.awake != "" && bytes.Contains(s.text.Bytes(), []byte(s.awake)) {
		s.awake = ""
		close(s.seen)
	}
	return len(b), nil
}

// A runningDemo is one that something happens to.
type runningDemo struct {
	cmd *exec.Cmd
	out *transcript
}

// startDemoProgram starts the demo and returns in the middle of its first scene.
func startDemoProgram(t *testing.T, redisURL string) *runningDemo {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), demoLimit)
	t.Cleanup(cancel)
	d := &runningDemo{cmd: demoCommand(ctx, redisURL), out: &transcript{awake: "the answer takes for ever", seen: make(chan struct{})}}
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	require.NoError(t, d.cmd.Start())
	select {
	case <-d.out.seen:
	case <-ctx.Done():
		err := d.cmd.Wait()
		t.Fatalf("it ended with %v and printed:\n%s", err, d.out.text.String())
	}
	return d
}

func (d *runningDemo) wait(t *testing.T) (out string, err error) {
	t.Helper()
	err = d.cmd.Wait()
	t.Logf("%s", d.out.text.String())
	return d.out.text.String(), err
}
