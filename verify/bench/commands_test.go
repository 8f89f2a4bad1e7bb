package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const someStats = "# Commandstats\r\n" +
	"cmdstat_set:calls=12,usec=40,usec_per_call=3.33,rejected_calls=0,failed_calls=0\r\n" +
	"cmdstat_evalsha:calls=5,usec=40,usec_per_call=8.00,rejected_calls=0,failed_calls=0\r\n" +
	"cmdstat_hello:calls=3,usec=40,usec_per_call=8.00,rejected_calls=0,failed_calls=0\r\n" +
	"cmdstat_client|setinfo:calls=6,usec=1,usec_per_call=1.00,rejected_calls=6,failed_calls=0\r\n" +
	"cmdstat_config|resetstat:calls=1,usec=1,usec_per_call=1.00,rejected_calls=0,failed_calls=0\r\n"

func TestParseCommandStats(t *testing.T) {
	calls, err := parseCommandStats(someStats)
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"set": 12, "evalsha": 5}, calls)
	assert.Equal(t, 17, total(calls))
}

func TestParseCommandStatsOfSomethingElse(t *testing.T) {
	_, err := parseCommandStats("cmdstat_set:calls=many,usec=1")
	require.ErrorContains(t, err, "many")
}

func TestMonitored(t *testing.T) {
	for line, want := range map[string]struct {
		command string
		inner   bool
	}{
		`1700000000.123456 [0 127.0.0.1:60866] "SET" "k" "] \"x"`:    {"set", false},
		`1700000000.123456 [0 lua] "GETRANGE" "k" "0" "17"`:          {"getrange", true},
		`1700000000.123456 [0 unix:/run/redis.sock] "get" "[0 lua]"`: {"get", false},
		"+OK": {"", false},
	} {
		command, inner := monitored(line)
		assert.Equal(t, want.command, command, line)
		assert.Equal(t, want.inner, inner, line)
	}
}

func TestTallyText(t *testing.T) {
	assert.Equal(t, "2", tally{sent: 200}.text(100))
	assert.Equal(t, "2 (+3)", tally{sent: 200, inner: 300}.text(100))
	assert.Equal(t, "0.03", tally{sent: 3}.text(100))
}

func TestInfoField(t *testing.T) {
	n, err := infoField("# Memory\r\nused_memory:1024\r\nused_memory_human:1K\r\n", "used_memory")
	require.NoError(t, err)
	assert.Equal(t, 1024.0, n)
	_, err = infoField("", "used_memory")
	require.Error(t, err)
}
