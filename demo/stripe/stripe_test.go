package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/demo/internal/stage"
	"github.com/idempotent-go/idempotent/demo/internal/stage/stagetest"
)

func TestMain(m *testing.M) { stagetest.Main(m, main) }

// demoWith is the example with that environment.
func demoWith(env ...string) stagetest.Demo {
	return stagetest.Demo{Limit: 80 * time.Second, Env: append([]string{"STRIPE_API_KEY="}, env...)}
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

// The Redis is a redis-server if there is one, and needs nothing but Go otherwise.
func TestExample(t *testing.T) {
	out, err := demoWith().Run(t)
	require.NoError(t, err)
	if _, err := exec.LookPath("redis-server"); err == nil {
		assert.Regexp(t, `Redis +redis-server [0-9.]+ at 127\.0\.0\.1:\d+`, out)
	} else {
		assert.Regexp(t, `Redis +miniredis at 127\.0\.0\.1:\d+`, out)
	}
	stagetest.AssertAllHolds(t, out, keyLines, 120)
}

// Killed, the example leaves no process behind.
func TestExampleKilledLeavesNothing(t *testing.T) {
	d := demoWith().Start(t, "waits for the owner")
	d.Signal(t, os.Kill)
	out, err := d.Wait(t)
	stagetest.AssertFailed(t, err)
	for _, addr := range regexp.MustCompile(`127\.0\.0\.1:\d+`).FindAllString(out, -1) {
		stagetest.AssertSilent(t, addr)
	}
}

func TestExampleRefusesRealMoney(t *testing.T) {
	for _, key := range []string{"sk_live_secret", "rk_live_secret", "nonsense"} {
		out, err := demoWith("STRIPE_API_KEY=" + key).Run(t)
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
	d := &demo{out: stage.NewNarrator(&text), namespace: stage.Namespace("stripe"), stripe: newStripe("sk_test_mock", p.url)}
	var err error
	d.fleet, err = startFleet(setup{
		RedisURL: "redis://" + server.Addr(), StripeKey: "sk_test_mock", StripeURL: p.url, Namespace: d.namespace,
	}, d.observe)
	require.NoError(t, err)
	defer d.fleet.Stop(stopLimit)

	result, err := d.playAll(t.Context())
	out := text.String()
	t.Log(out)
	require.NoError(t, err)
	assert.Equal(t, stage.Tally{Checks: 14, Skipped: 5}, result)
	assert.Equal(t, 5, strings.Count(out, "Skipped: "))
	assert.Contains(t, out, "Skipped: an owner killed")
	for _, key := range server.Keys() {
		assert.True(t, strings.HasPrefix(key, "idempotent:"+d.namespace+":order-"), key)
		assert.Positive(t, server.TTL(key), "it goes away by itself")
	}
	assert.Equal(t, 0, d.out.Conclude(result, nil))
}
