package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asProgram makes this test binary the example itself: as parent, worker, or any other role.
const asProgram = "STRIPE_EXAMPLE_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	if err := os.Setenv(asProgram, "yes"); err != nil { // for every process that is started
		panic(err)
	}
	os.Exit(m.Run())
}

const (
	programLimit = 80 * time.Second
	leftLimit    = 20 * time.Second
)

// program is the example with these variables.
func program(ctx context.Context, t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(ctx, self)
	// All its processes write to the same standard error. So Wait waits for them too, and it is an
	// error if one of them is still there after this.
	cmd.WaitDelay = leftLimit
	cmd.Env = append(os.Environ(), append([]string{"REDIS_URL=", "STRIPE_API_KEY="}, env...)...)
	return cmd
}

func runProgram(t *testing.T, env ...string) (out string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), programLimit)
	defer cancel()
	raw, err := program(ctx, t, env...).CombinedOutput()
	t.Logf("%s", raw)
	return string(raw), err
}

// keyLines is what a visitor must be able to read.
var keyLines = []string{
	`charges the customer pays for, all but one too many +50 +50 +ok`,
	`2\. 5 processes, 10 calls each, 1 charge`,
	`calls that ran fn +1 +1 +ok`,
	`calls that got the same charge +50 +50 \(pi_\d+\) +ok`,
	`charges the customer pays for +1 +1 \(pi_\d+\) +ok`,
	`3\. A declined card`,
	`calls where errors\.As finds one \*stripe\.Error +50 +50 \(req_\d+\) +ok`,
	`its code +card_declined +card_declined +ok`,
	`of these, marked as replayed \(ErrReplayed\) +49 +49 +ok`,
	`4\. Stripe's rate limit`,
	`5\. The connection breaks`,
	`worker \d does not know what attempt 1 has done`,
	`executions of fn: attempt 1, and 2 that looked first +2 +2 +ok`,
	`6\. An owner killed`,
	`parent: SIGKILL for worker \d`,
	`worker \d owns the key and runs fn, attempt 2`,
	`surviving calls that got the same charge +40 +40 \(pi_\d+\) +ok`,
	`times Stripe was asked what had happened +1 +1 +ok`,
	`answers from Stripe's memory of the key +1 +1 +ok`,
	`All 55 checks hold\.`,
}

func assertAllHolds(t *testing.T, out string) {
	t.Helper()
	for _, line := range keyLines {
		assert.Regexp(t, line, out)
	}
	assert.NotContains(t, out, "FAILED")
	for line := range strings.Lines(out) {
		assert.LessOrEqual(t, len(line), 121, line)
	}
}

// The Redis is a redis-server if there is one, and needs nothing but Go otherwise.
func TestExample(t *testing.T) {
	out, err := runProgram(t)
	require.NoError(t, err)
	if _, err := exec.LookPath("redis-server"); err == nil {
		assert.Regexp(t, `Redis +redis-server [0-9.]+ at 127\.0\.0\.1:\d+`, out)
	} else {
		assert.Regexp(t, `Redis +miniredis at 127\.0\.0\.1:\d+`, out)
	}
	assertAllHolds(t, out)
}

// Killed, the example leaves no process behind.
func TestExampleKilledLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), programLimit)
	defer cancel()
	cmd := program(ctx, t)
	out := &awaited{text: "waits for the owner", seen: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Start())
	select {
	case <-out.seen:
	case <-ctx.Done():
	}
	require.NoError(t, cmd.Process.Kill())
	_, failed := errors.AsType[*exec.ExitError](cmd.Wait())
	require.True(t, failed, "%s", out.all.String())
	for _, url := range regexp.MustCompile(`127\.0\.0\.1:\d+`).FindAllString(out.all.String(), -1) {
		assert.Eventually(t, func() bool { return !listens(url) }, leftLimit, 10*time.Millisecond, "%s is still there", url)
	}
}

func listens(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// awaited is an output in which a text is waited for.
type awaited struct {
	all  bytes.Buffer
	text string
	seen chan struct{}
}

func (a *awaited) Write(b []byte) (int, error) {
	a.all.Write(b)
	if a.text != "" && bytes.Contains(a.all.Bytes(), []byte(a.text)) {
		a.text = ""
		close(a.seen)
	}
	return len(b), nil
}

func TestExampleRefusesRealMoney(t *testing.T) {
	for _, key := range []string{"sk_live_secret", "rk_live_secret", "nonsense"} {
		out, err := runProgram(t, "STRIPE_API_KEY="+key)
		exit, ok := errors.AsType[*exec.ExitError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, 1, exit.ExitCode())
		assert.Contains(t, out, "would charge real customers")
		assert.NotContains(t, out, key)
	}
}

// With STRIPE_API_KEY there is no proxy to look into, and Stripe's books are read through its API.
// Here that API is the proxy's, which the demo does not know.
func TestDemoWithoutProxy(t *testing.T) {
	p := newTestProxy(t)
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true)
	require.NoError(t, server.Start())
	defer server.Close()
	var text bytes.Buffer
	d := &demo{out: newPrinter(&text), namespace: newNamespace(), stripe: newStripe("sk_test_mock", p.url)}
	var err error
	d.fleet, err = startFleet(setup{
		RedisURL: "redis://" + server.Addr(), StripeKey: "sk_test_mock", StripeURL: p.url, Namespace: d.namespace,
	}, d.observe)
	require.NoError(t, err)
	defer d.fleet.stop()

	result, err := d.playAll(t.Context())
	out := text.String()
	t.Log(out)
	require.NoError(t, err)
	assert.Equal(t, tally{checks: 14, skipped: 5}, result)
	assert.Equal(t, 5, strings.Count(out, "Skipped: "))
	assert.Contains(t, out, "Skipped: an owner killed")
	for _, key := range server.Keys() {
		assert.True(t, strings.HasPrefix(key, "idempotent:"+d.namespace+":order-"), key)
		assert.Positive(t, server.TTL(key), "it goes away by itself")
	}
	assert.Equal(t, 0, d.out.conclude(result, nil))
}

func TestConclusions(t *testing.T) {
	for _, test := range []struct {
		tally
		err    error
		status int
		text   string
	}{
		{tally{checks: 3}, nil, 0, "All 3 checks hold."},
		{tally{checks: 3, skipped: 2}, nil, 0, "All 3 checks hold; 2 scenes were skipped."},
		{tally{checks: 3, failed: 1}, nil, 1, "FAILED: 1 of 3 checks do not hold."},
		{tally{}, nil, 1, "FAILED: nothing was checked."},
		{tally{skipped: 7}, nil, 1, "FAILED: nothing was checked."},
		{tally{checks: 3}, errors.New("broken"), 1, "FAILED: broken"},
	} {
		var out bytes.Buffer
		assert.Equal(t, test.status, newPrinter(&out).conclude(test.tally, test.err))
		assert.Equal(t, fmt.Sprintf("\n%s\n", test.text), out.String())
	}
}
