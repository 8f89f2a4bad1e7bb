package main

import (
	"bytes"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/demo/internal/stage/stagetest"
)

func TestMain(m *testing.M) { stagetest.Main(m, main) }

// demoWith is the demo with a small load and that environment.
func demoWith(env ...string) stagetest.Demo {
	return stagetest.Demo{Limit: 80 * time.Second, Args: []string{"-events", "200", "-p99", "0"}, Env: env}
}

func TestDemoWithRedisServerOnPath(t *testing.T) {
	stagetest.RequireRedisServer(t)
	t.Parallel()
	out, err := demoWith().Run(t)
	require.NoError(t, err)
	assert.Regexp(t, `Redis +redis-server [0-9.]+ at 127\.0\.0\.1:\d+, started for this demo`, out)
	stagetest.AssertAllHolds(t, out, keyLines, 104)
	assertNothingLeft(t, out)
}

// The demo needs nothing but Go. In a Redis that it is given it leaves other keys alone, and none of its own.
func TestDemoWithSimulatedRedis(t *testing.T) {
	t.Parallel()
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true)
	require.NoError(t, server.Start())
	defer server.Close()
	require.NoError(t, server.Set("webhook:{webhook}:lanes", "another program's"))

	out, err := demoWith(envRedis + "=redis://" + server.Addr()).Run(t)
	require.NoError(t, err)
	stagetest.AssertAllHolds(t, out, keyLines, 104)
	server.CheckGet(t, "webhook:{webhook}:lanes", "another program's")
	assert.Equal(t, []string{"webhook:{webhook}:lanes"}, server.Keys())
}

func TestDemoFailsWithoutRedis(t *testing.T) {
	t.Parallel()
	addr := stagetest.SilentAddress(t)
	out, err := demoWith(envRedis + "=redis://:secret@" + addr).Run(t)
	stagetest.AssertFailed(t, err)
	assert.Contains(t, out, "FAILED: ")
	assert.NotContains(t, out, "secret")
}

// Interrupted or killed, the demo leaves no process behind.
func TestDemoLeavesNothingBehind(t *testing.T) {
	stagetest.RequireRedisServer(t)
	for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			d := demoWith().Start(t, endpointListens)
			d.Signal(t, sig)
			out, err := d.Wait(t)
			stagetest.AssertFailed(t, err)
			if sig == os.Interrupt {
				assert.Contains(t, out, "FAILED: stopped: ")
			}
			assertNothingLeft(t, out)
		})
	}
}

const endpointListens = "workers listens, pid"

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

var endpointPID = regexp.MustCompile(endpointListens + ` (\d+)`)

// assertNothingLeft makes sure that the processes of a run are gone. After a kill that takes a
// moment.
func assertNothingLeft(t *testing.T, out string) {
	t.Helper()
	stagetest.AssertNoRedisLeft(t, out)
	pids := endpointPID.FindAllStringSubmatch(out, -1)
	require.NotEmpty(t, pids, "the demo names its endpoints")
	for _, match := range pids {
		pid, err := strconv.Atoi(match[1])
		require.NoError(t, err)
		assert.Eventually(t, func() bool { return gone(pid) }, stagetest.LeftLimit, 10*time.Millisecond, "endpoint %d is still there", pid)
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
