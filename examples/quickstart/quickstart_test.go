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
	"syscall"
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
		dir, err := os.MkdirTemp("", "quickstart-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "quickstart")
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

// demoCommand is the demo with REDIS_URL as given, and with a PATH as given unless that is empty.
func demoCommand(ctx context.Context, redisURL, path string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program)
	// The workers write to the same standard error. So Wait waits for them too, and it is an
	// error if one of them is still there after this.
	cmd.WaitDelay = leftLimit
	cmd.Env = append(os.Environ(), "REDIS_URL="+redisURL)
	if path != "" {
		cmd.Env = append(cmd.Env, "PATH="+path)
	}
	return cmd
}

const (
	demoLimit = time.Minute
	leftLimit = 20 * time.Second
)

func runDemoProgram(t *testing.T, redisURL, path string) (out string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), demoLimit)
	defer cancel()
	raw, err := demoCommand(ctx, redisURL, path).CombinedOutput()
	t.Logf("%s", raw)
	return string(raw), err
}

func requireRedisServer(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server on PATH")
	}
}

func TestDemoWithRedisServerOnPath(t *testing.T) {
	requireRedisServer(t)
	out, err := runDemoProgram(t, "", "")
	require.NoError(t, err)
	assert.Regexp(t, `Redis +redis-server [0-9.]+ at 127\.0\.0\.1:\d+, started for this demo`, out)
	assertAllHolds(t, out)
	assertNoServerLeft(t, out)
}

func TestDemoWithNothingButGo(t *testing.T) {
	out, err := runDemoProgram(t, "", t.TempDir())
	require.NoError(t, err)
	assert.Regexp(t, `Redis +miniredis at 127\.0\.0\.1:\d+`, out)
	assertAllHolds(t, out)
}

// The demo leaves alone what it finds, and its own keys go away by themselves.
func TestDemoWithGivenRedis(t *testing.T) {
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true)
	require.NoError(t, server.Start())
	defer server.Close()
	require.NoError(t, server.Set("idempotent:quickstart:order-1", "somebody else's"))

	out, err := runDemoProgram(t, "redis://"+server.Addr(), "")
	require.NoError(t, err)
	assert.Contains(t, out, server.Addr()+", named by REDIS_URL")
	assertAllHolds(t, out)
	server.CheckGet(t, "idempotent:quickstart:order-1", "somebody else's")
	assert.Len(t, server.Keys(), 1+5)
	server.FastForward(5 * time.Minute)
	assert.Len(t, server.Keys(), 1)
}

func TestDemoFailsWithoutRedis(t *testing.T) {
	addr := silentAddress(t)
	out, err := runDemoProgram(t, "redis://:secret@"+addr, "")
	assertFailed(t, err)
	assert.Contains(t, out, "FAILED: the Redis that REDIS_URL names, at "+addr+", does not answer")
	assert.NotContains(t, out, "secret")
}

// silentAddress is one where nobody listens.
func silentAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// A Redis that goes away in the middle fails the demo; it does not hang it.
func TestDemoFailsWhenRedisGoesAway(t *testing.T) {
	server := miniredis.NewMiniRedis()
	require.NoError(t, server.Start())
	defer server.Close()
	d := startDemoProgram(t, "redis://"+server.Addr(), runsFn)
	server.Close()
	out, err := d.wait(t)
	assertFailed(t, err)
	assert.Contains(t, out, "FAILED")
}

// runsFn is printed in the middle of things.
const runsFn = "owns the key and runs fn"

// Interrupted or killed, the demo leaves no process behind.
func TestDemoLeavesNothingBehind(t *testing.T) {
	requireRedisServer(t)
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, os.Kill} {
		t.Run(sig.String(), func(t *testing.T) {
			d := startDemoProgram(t, "", runsFn)
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
	`1\. One charge for a hundred callers`,
	`callers that ran fn +1 +1 \(worker \d\) +ok`,
	`callers that got the same charge +100 +100 \(ch_1\) +ok`,
	`times the provider was called +1 +1 +ok`,
	`Redis commands sent by all processes together +1 to 100 +\d+ +ok`,
	`time from the end of fn to the last return +under 1 s +[0-9.]+ ms +ok`,
	`2\. A declined card`,
	`callers in which errors\.As finds one \*CardError +100 +100 \(req_2\) +ok`,
	`of these, marked as replayed \(ErrReplayed\) +99 +99 +ok`,
	`3\. A provider down for a moment`,
	`callers that got it from a record: there is none +0 +0 +ok`,
	`callers that got the same charge +99 +99 \(ch_4\) +ok`,
	`4\. Another amount under the same key`,
	`callers refused \(ErrKeyReused\) while fn ran +20 +20 +ok`,
	`callers refused \(ErrKeyReused\) afterwards +20 +20 +ok`,
	`5\. An owner killed in mid-flight`,
	`parent: SIGKILL for worker \d, pid \d+`,
	`worker \d owns the key and runs fn, attempt 2`,
	`provider: worker \d asks whether the money was taken: yes, as ch_6`,
	`surviving callers that got the same charge +80 +80 \(ch_6\) +ok`,
	`charges the customer pays for +1 +1 +ok`,
	`All 43 checks hold\.`,
}

func assertAllHolds(t *testing.T, out string) {
	t.Helper()
	for _, line := range keyLines {
		assert.Regexp(t, line, out)
	}
	assert.NotContains(t, out, "FAILED")
	for line := range strings.Lines(out) {
		assert.LessOrEqual(t, len(line), 101, line)
	}
}

func assertFailed(t *testing.T, err error) {
	t.Helper()
	exit, ok := errors.AsType[*exec.ExitError](err)
	require.True(t, ok, "%v", err)
	require.NotZero(t, exit.ExitCode())
}

var startedAddr = regexp.MustCompile(`redis-server .*at (\S+), started for this demo`)

// assertNoServerLeft makes sure that the redis-server of a run is gone. After a kill that takes a
// moment.
func assertNoServerLeft(t *testing.T, out string) {
	t.Helper()
	addr := startedAddr.FindStringSubmatch(out)
	require.NotNil(t, addr, "the demo names its redis-server")
	assert.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", addr[1])
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, leftLimit, 10*time.Millisecond, "the redis-server is still there")
}

// A runningDemo is one that something happens to.
type runningDemo struct {
	cmd *exec.Cmd
	out *transcript
}

// startDemoProgram starts the demo and returns when it has printed that text.
func startDemoProgram(t *testing.T, redisURL, text string) *runningDemo {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), demoLimit)
	t.Cleanup(cancel)
	d := &runningDemo{cmd: demoCommand(ctx, redisURL, ""), out: &transcript{awake: text, seen: make(chan struct{})}}
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	require.NoError(t, d.cmd.Start())
	select {
	case <-d.out.seen:
	case <-ctx.Done():
		err := d.cmd.Wait()
		t.Fatalf("it did not print %q, ended with %v and printed:\n%s", text, err, d.out.text.String())
	}
	return d
}

func (d *runningDemo) wait(t *testing.T) (out string, err error) {
	t.Helper()
	err = d.cmd.Wait()
	t.Logf("%s", d.out.text.String())
	return d.out.text.String(), err
}
