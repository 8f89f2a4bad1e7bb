package main

import (
	"os"
	"regexp"
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

// answerHangs is printed in the middle of the first scene.
const answerHangs = "the answer takes for ever"

// The demo on what there is: redis-server or, without one, miniredis.
func TestDemo(t *testing.T) {
	t.Parallel()
	out, err := demoWith().Run(t)
	require.NoError(t, err)
	assertAllHolds(t, out)
	stagetest.AssertNoRedisLeft(t, out)
}

// The demo leaves alone what it finds, and removes its queue. Its receipts go away by themselves.
func TestDemoWithGivenRedis(t *testing.T) {
	t.Parallel()
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true)
	require.NoError(t, server.Start())
	defer server.Close()
	require.NoError(t, server.Set("asynq:{default}:t:1", "somebody else's"))

	out, err := demoWith("REDIS_URL=redis://" + server.Addr()).Run(t)
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
	addr := stagetest.SilentAddress(t)
	out, err := demoWith("REDIS_URL=redis://:secret@" + addr).Run(t)
	stagetest.AssertFailed(t, err)
	assert.Contains(t, out, "FAILED: the Redis that REDIS_URL names, at "+addr+", does not answer")
	assert.NotContains(t, out, "secret")
}

// A Redis that goes away in the middle fails the demo; it does not hang it.
func TestDemoFailsWhenRedisGoesAway(t *testing.T) {
	t.Parallel()
	server := miniredis.NewMiniRedis()
	require.NoError(t, server.Start())
	defer server.Close()
	d := demoWith("REDIS_URL=redis://"+server.Addr()).Start(t, answerHangs)
	server.Close()
	out, err := d.Wait(t)
	stagetest.AssertFailed(t, err)
	assert.Contains(t, out, "FAILED")
}

// Interrupted or killed, the demo leaves no process behind.
func TestDemoLeavesNothingBehind(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
		t.Run(sig.String(), func(t *testing.T) {
			d := demoWith().Start(t, answerHangs)
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
	stagetest.AssertAllHolds(t, out, keyLines, 100)
	assert.Len(t, regexp.MustCompile(`refunds paid +1 +1 +ok`).FindAllString(out, -1), 6)
}
