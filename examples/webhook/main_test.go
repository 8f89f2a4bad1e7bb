package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/examples/internal/redisproc"
)

// asProgram in the environment makes the test's binary the program itself. So the tests run what
// main does, in processes of its own, and nothing has to be built for them.
const asProgram = "WEBHOOK_AS_PROGRAM"

func TestMain(m *testing.M) {
	redisproc.Main()
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

const (
	demoLimit = 80 * time.Second
	leftLimit = 20 * time.Second
)

// demoCommand is the demo with a small load, and with what is given in its environment.
func demoCommand(ctx context.Context, t *testing.T, environment ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(ctx, self, "-events", "200", "-p99", "0")
	cmd.Env = append(os.Environ(), asProgram+"=1", envRedis+"=")
	cmd.Env = append(cmd.Env, environment...)
	return cmd
}

func runProgram(t *testing.T, environment ...string) (out string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), demoLimit)
	defer cancel()
	raw, err := demoCommand(ctx, t, environment...).CombinedOutput()
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
	t.Parallel()
	out, err := runProgram(t)
	require.NoError(t, err)
	assert.Regexp(t, `Redis +redis-server [0-9.]+ at 127\.0\.0\.1:\d+, started for this demo`, out)
	assertAllHolds(t, out)
	assertNothingLeft(t, out)
}

// The demo needs nothing but Go, and leaves alone what it finds in a Redis that it is given. Its
// own keys go away by themselves.
func TestDemoWithSimulatedRedis(t *testing.T) {
	t.Parallel()
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true)
	require.NoError(t, server.Start())
	defer server.Close()
	require.NoError(t, server.Set("webhook:{webhook}:queue", "somebody else's"))

	out, err := runProgram(t, envRedis+"=redis://"+server.Addr())
	require.NoError(t, err)
	assertAllHolds(t, out)
	server.CheckGet(t, "webhook:{webhook}:queue", "somebody else's")
	for _, key := range server.Keys() {
		if key != "webhook:{webhook}:queue" {
			assert.Positive(t, server.TTL(key), key)
			assert.LessOrEqual(t, server.TTL(key), demoKeep, key)
		}
	}
}

func TestDemoFailsWithoutRedis(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	out, err := runProgram(t, envRedis+"=redis://:secret@"+addr)
	assertFailed(t, err)
	assert.Contains(t, out, "FAILED: ")
	assert.NotContains(t, out, "secret")
}

// Interrupted or killed, the demo leaves no process behind.
func TestDemoLeavesNothingBehind(t *testing.T) {
	requireRedisServer(t)
	for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), demoLimit)
			defer cancel()
			cmd := demoCommand(ctx, t)
			out := &transcript{awake: []byte(endpointListens), seen: make(chan struct{})}
			cmd.Stdout, cmd.Stderr = out, out
			require.NoError(t, cmd.Start())
			select {
			case <-out.seen:
			case <-ctx.Done():
			}
			require.NoError(t, cmd.Process.Signal(sig))
			assertFailed(t, cmd.Wait())
			t.Logf("%s", out.text.String())
			if sig == os.Interrupt {
				assert.Contains(t, out.text.String(), "FAILED: stopped: ")
			}
			assertNothingLeft(t, out.text.String())
		})
	}
}

const endpointListens = "workers listens, pid"

// A transcript is what the demo prints.
type transcript struct {
	text  bytes.Buffer // to be read once the demo has ended
	awake []byte
	seen  chan struct{} // closed at that text
}

func (s *transcript) Write(b []byte) (int, error) {
	s.text.Write(b)
	if s.awake != nil && bytes.Contains(s.text.Bytes(), s.awake) {
		s.awake = nil
		close(s.seen)
	}
	return len(b), nil
}

// keyLines is what a visitor must be able to read.
var keyLines = []string{
	`1\. Nobody else's events`,
	`an endpoint without a secret +does not start +does not start +ok`,
	`signed 6 minutes ago +400 +400 +ok`,
	`requests to the ledger +0 +0 +ok`,
	`2\. The same event twenty times`,
	`deliveries answered with 2xx +100 +100 +ok`,
	`credits in the ledger +5 +5 +ok`,
	`3\. One change under several ids`,
	`credits of the transfer: one for each version +2 +2 +ok`,
	`4\. A handler that fails`,
	`dead letters +2 +2 +ok`,
	`orders credited once in the end +3 +3 +ok`,
	`5\. Killed after the 2xx`,
	`SIGKILL for the endpoint, pid \d+; the ledger has 1 credit`,
	`requests for the credit that was made +1 +1 +ok`,
	`6\. 200 events, 30 % of them duplicates`,
	`answered in +p50 [0-9.]+ ms, p99 [0-9.]+ ms, max [0-9.]+ ms`,
	`orders credited twice +0 +0 +ok`,
	`All 61 checks hold\.`,
}

func assertAllHolds(t *testing.T, out string) {
	t.Helper()
	for _, line := range keyLines {
		assert.Regexp(t, line, out)
	}
	assert.NotContains(t, out, "FAILED")
	for line := range strings.Lines(out) {
		assert.LessOrEqual(t, len(line), 105, line)
	}
}

func assertFailed(t *testing.T, err error) {
	t.Helper()
	exit, ok := errors.AsType[*exec.ExitError](err)
	require.True(t, ok, "%v", err)
	require.NotZero(t, exit.ExitCode())
}

var (
	redisAddr   = regexp.MustCompile(`redis-server .*at (\S+), started for this demo`)
	endpointPID = regexp.MustCompile(endpointListens + ` (\d+)`)
)

// assertNothingLeft makes sure that the processes of a run are gone. After a kill that takes a
// moment.
func assertNothingLeft(t *testing.T, out string) {
	t.Helper()
	addr := redisAddr.FindStringSubmatch(out)
	require.NotNil(t, addr, "the demo names its redis-server")
	assert.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", addr[1])
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, leftLimit, 10*time.Millisecond, "the redis-server is still there")
	pids := endpointPID.FindAllStringSubmatch(out, -1)
	require.NotEmpty(t, pids, "the demo names its endpoints")
	for _, match := range pids {
		pid, err := strconv.Atoi(match[1])
		require.NoError(t, err)
		assert.Eventually(t, func() bool { return gone(pid) }, leftLimit, 10*time.Millisecond, "endpoint %d is still there", pid)
	}
}

// gone is also true of a process that has ended and that nobody has asked about yet.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && bytes.Contains(stat, []byte(") Z "))
}
