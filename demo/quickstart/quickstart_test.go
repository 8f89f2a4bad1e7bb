package main

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/demo/internal/stage/stagetest"
)

func TestMain(m *testing.M) { stagetest.Main(m, main) }

// demoWith is the demo with that environment.
func demoWith(env ...string) stagetest.Demo {
	return stagetest.Demo{Limit: time.Minute, Env: env}
}

func TestDemoWithRedisServerOnPath(t *testing.T) {
	stagetest.RequireRedisServer(t)
	out, err := demoWith().Run(t)
	require.NoError(t, err)
	assert.Regexp(t, `Redis +redis-server [0-9.]+ at 127\.0\.0\.1:\d+, started for this demo`, out)
	assertAllHolds(t, out)
	stagetest.AssertNoRedisLeft(t, out)
}

func TestDemoWithNothingButGo(t *testing.T) {
	out, err := demoWith("PATH=" + t.TempDir()).Run(t)
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

	out, err := demoWith("REDIS_URL=redis://" + server.Addr()).Run(t)
	require.NoError(t, err)
	assert.Contains(t, out, server.Addr()+", named by REDIS_URL")
	assertAllHolds(t, out)
	server.CheckGet(t, "idempotent:quickstart:order-1", "somebody else's")
	assert.Len(t, server.Keys(), 1+5)
	server.FastForward(5 * time.Minute)
	assert.Len(t, server.Keys(), 1)
}

func TestDemoFailsWithoutRedis(t *testing.T) {
	addr := stagetest.SilentAddress(t)
	out, err := demoWith("REDIS_URL=redis://:secret@" + addr).Run(t)
	stagetest.AssertFailed(t, err)
	assert.Contains(t, out, "FAILED: the Redis that REDIS_URL names, at "+addr+", does not answer")
	assert.NotContains(t, out, "secret")
}

// A Redis that goes away in the middle fails the demo; it does not hang it.
func TestDemoFailsWhenRedisGoesAway(t *testing.T) {
	server := miniredis.NewMiniRedis()
	require.NoError(t, server.Start())
	defer server.Close()
	d := demoWith("REDIS_URL=redis://"+server.Addr()).Start(t, runsFn)
	server.Close()
	out, err := d.Wait(t)
	stagetest.AssertFailed(t, err)
	assert.Contains(t, out, "FAILED")
}

// runsFn is printed in the middle of things.
const runsFn = "owns the key and runs fn"

// Interrupted or killed, the demo leaves no process behind.
func TestDemoLeavesNothingBehind(t *testing.T) {
	stagetest.RequireRedisServer(t)
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, os.Kill} {
		t.Run(sig.String(), func(t *testing.T) {
			d := demoWith().Start(t, runsFn)
			d.Signal(t, sig)
			out, err := d.Wait(t)
			stagetest.AssertFailed(t, err)
			if sig != os.Kill {
				assert.Contains(t, out, "FAILED: stopped: ")
			}
			stagetest.AssertNoRedisLeft(t, out)
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
	stagetest.AssertAllHolds(t, out, keyLines, 100)
}
