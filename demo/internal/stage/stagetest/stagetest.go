// Package stagetest runs an example as a whole, as a visitor does, and looks at what it prints and
// leaves behind.
package stagetest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// LeftLimit is how long a process may outlive an example that was killed.
const LeftLimit = 20 * time.Second

// asProgram in the environment makes the test's binary the example itself: as the parent, or in any
// other role. So nothing has to be built, and the race detector sees all of it.
const asProgram = "EXAMPLE_AS_PROGRAM"

// Main is for TestMain. program is the example's main function.
func Main(m *testing.M, program func()) {
	if os.Getenv(asProgram) != "" {
		program()
		os.Exit(0)
	}
	if err := os.Setenv(asProgram, "yes"); err != nil { // for every process that is started
		panic(err)
	}
	os.Exit(m.Run())
}

// A Demo is how an example is run.
type Demo struct {
	Limit time.Duration
	Args  []string
	Env   []string // beside what the test has; REDIS_URL is empty without it
}

func (d Demo) command(ctx context.Context, t *testing.T) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(ctx, self, d.Args...)
	// All its processes write to the same standard error. So Wait waits for them too, and it is an
	// error if one of them is still there after this.
	cmd.WaitDelay = LeftLimit
	cmd.Env = append(append(os.Environ(), "REDIS_URL="), d.Env...)
	return cmd
}

// Run runs the example to its end.
func (d Demo) Run(t *testing.T) (out string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d.Limit)
	defer cancel()
	raw, err := d.command(ctx, t).CombinedOutput()
	t.Logf("%s", raw)
	return string(raw), err
}

// Start starts the example and returns when it has printed that text.
func (d Demo) Start(t *testing.T, text string) *Running {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d.Limit)
	t.Cleanup(cancel)
	out := &transcript{awaited: []byte(text), seen: make(chan struct{})}
	cmd := d.command(ctx, t)
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Start())
	select {
	case <-out.seen:
	case <-ctx.Done():
		err := cmd.Wait()
		t.Fatalf("it did not print %q, ended with %v and printed:\n%s", text, err, out.text.String())
	}
	return &Running{cmd: cmd, out: out}
}

// A Running is an example that something happens to.
type Running struct {
	cmd *exec.Cmd
	out *transcript
}

// Signal sends it a signal.
func (r *Running) Signal(t *testing.T, sig os.Signal) {
	t.Helper()
	require.NoError(t, r.cmd.Process.Signal(sig))
}

// Wait returns when it has ended.
func (r *Running) Wait(t *testing.T) (out string, err error) {
	t.Helper()
	err = r.cmd.Wait()
	t.Logf("%s", r.out.text.String())
	return r.out.text.String(), err
}

// A transcript is what an example prints.
type transcript struct {
	text    bytes.Buffer // to be read once the example has ended
	awaited []byte
	seen    chan struct{} // closed at that text
}

func (s *transcript) Write(b []byte) (int, error) {
	s.text.Write(b)
	if s.awaited != nil && bytes.Contains(s.text.Bytes(), s.awaited) {
		s.awaited = nil
		close(s.seen)
	}
	return len(b), nil
}

// AssertAllHolds wants each of the lines, regular expressions, and nothing that failed or is wider.
func AssertAllHolds(t *testing.T, out string, lines []string, width int) {
	t.Helper()
	for _, line := range lines {
		assert.Regexp(t, line, out)
	}
	assert.NotContains(t, out, "FAILED")
	for line := range strings.Lines(out) {
		assert.LessOrEqual(t, len(line), width+1, line)
	}
}

// AssertFailed wants err to be that of a program that ended with a status other than zero.
func AssertFailed(t *testing.T, err error) {
	t.Helper()
	exit, ok := errors.AsType[*exec.ExitError](err)
	require.True(t, ok, "%v", err)
	require.NotZero(t, exit.ExitCode())
}

var redisAddr = regexp.MustCompile(`Redis +\S+.*? at (127\.0\.0\.1:\d+)`)

// AssertNoRedisLeft wants the Redis of a run to be gone. After a kill that takes a moment.
func AssertNoRedisLeft(t *testing.T, out string) {
	t.Helper()
	addr := redisAddr.FindStringSubmatch(out)
	require.NotNil(t, addr, "the demo names its Redis")
	AssertSilent(t, addr[1])
}

// AssertSilent wants nobody to listen there any more.
func AssertSilent(t *testing.T, addr string) {
	t.Helper()
	assert.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, LeftLimit, 10*time.Millisecond, "%s is still there", addr)
}

// SilentAddress is one where nobody listens.
func SilentAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// RequireRedisServer skips a test without a redis-server.
func RequireRedisServer(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server on PATH")
	}
}
