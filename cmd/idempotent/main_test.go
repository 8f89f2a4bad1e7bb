package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/present"
	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/internal/sample"
)

func TestMain(m *testing.M) {
	redis.SetLogger(silent{})
	code := m.Run()
	redistest.Cleanup()
	os.Exit(code)
}

// sampled is a server with the sample on it.
func sampled(t *testing.T) (*redistest.Server, *redis.Client) {
	t.Helper()
	server := redistest.Start(t)
	client := server.Client(t)
	require.NoError(t, sample.Store(t.Context(), client))
	return server, client
}

// A pipe is a stream that is no terminal.
type pipe struct {
	io.Reader
	bytes.Buffer
}

func (p *pipe) Read(b []byte) (int, error) { return p.Reader.Read(b) }
func (p *pipe) Fd() uintptr                { return ^uintptr(0) }

// A result is what one run of the program wrote.
type result struct {
	code     int
	out, err string
}

func execute(t *testing.T, url, typed string, args ...string) result {
	t.Helper()
	out, errs := &pipe{}, &pipe{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	code := run(ctx, newStreams(strings.NewReader(typed), out, errs, []string{"IDEMPOTENT_REDIS_URL=" + url}), args)
	return result{code, out.String(), errs.String()}
}

func TestListFilters(t *testing.T) {
	server, _ := sampled(t)
	count := func(args ...string) int {
		t.Helper()
		r := execute(t, server.URL(), "", append([]string{"list", "-o", "json"}, args...)...)
		require.Zero(t, r.code, r.err)
		return strings.Count(r.out, "\n")
	}
	assert.Equal(t, 8, count())
	assert.Equal(t, 6, count("-n", "payments"))
	assert.Equal(t, 5, count("-n", "payments", "--prefix", "order-"))
	assert.Equal(t, 2, count("--owner", "web-7:4211"))
	assert.Equal(t, 2, count("--older-than", "72h"))
	assert.Equal(t, 2, count("--state", "interrupted", "-s", "running"))
	assert.Equal(t, 3, count("--limit", "3"))
	for _, state := range states {
		want := 1
		if state == idempotent.StateSucceeded {
			want = 2
		}
		assert.Equal(t, want, count("--state", state.String()), "%v", state)
	}
}

// No payload is shown unless it is asked for.
func TestPayloadOnlyWhenAskedFor(t *testing.T) {
	server, _ := sampled(t)
	for _, args := range [][]string{{"list", "--limit", "0"}, {"export"}, {"stats"}, {"show", "payments", "order-41"}, {"show", "payments", "order-44", "-o", "json"}} {
		r := execute(t, server.URL(), "", args...)
		require.Zero(t, r.code, r.err)
		assert.NotContains(t, r.out+r.err, sample.Secret, "%v", args)
		assert.NotContains(t, r.out+r.err, "declined", "%v", args)
	}
	for key, want := range map[string]string{"payments order-41": sample.Secret, "payments order-44": "card declined", "api " + sample.HTTPKey: `status 201`} {
		r := execute(t, server.URL(), "", append([]string{"show", "--payload"}, strings.Fields(key)...)...)
		require.Zero(t, r.code, r.err)
		assert.Contains(t, r.out, want)
	}
	assert.Contains(t, execute(t, server.URL(), "", "export", "--payload").out, `"json":{"Amount":4200,"ID":"`+sample.Secret+`"}`)
}

func TestHostileKeyIsQuoted(t *testing.T) {
	server, client := sampled(t)
	quoted := present.Text(sample.HostileKey)
	for _, args := range [][]string{{"list"}, {"show", "payments", quoted}, {"list", "-o", "json"}, {"export"}} {
		r := execute(t, server.URL(), "", args...)
		require.Zero(t, r.code, r.err)
		assert.NotContains(t, r.out, "\x1b", "%v", args)
		assert.NotContains(t, r.out, "\x00", "%v", args)
		assert.Contains(t, r.out, "script", "%v", args)
	}
	r := execute(t, server.URL(), quoted+"\n", "forget", "payments", quoted)
	require.Zero(t, r.code, r.err)
	assert.Zero(t, client.Exists(t.Context(), "idempotent:payments:"+sample.HostileKey).Val())
}

func TestForgetAndResolve(t *testing.T) {
	server, client := sampled(t)
	stored := func(key string) int64 { return client.Exists(t.Context(), "idempotent:payments:"+key).Val() }

	r := execute(t, server.URL(), "order-4\n", "forget", "payments", "order-42")
	assert.Equal(t, exitCancelled, r.code)
	assert.Contains(t, r.err, "Type the key to go on")
	assert.Contains(t, r.err, "nothing was done")
	require.EqualValues(t, 1, stored("order-42"))
	assert.Equal(t, exitCancelled, execute(t, server.URL(), "", "forget", "payments", "order-42").code)
	require.EqualValues(t, 1, stored("order-42"))

	r = execute(t, server.URL(), "order-42\n", "forget", "payments", "order-42")
	require.Zero(t, r.code, r.err)
	assert.Contains(t, r.out, "forgotten; it was:")
	assert.Contains(t, r.out, "interrupted")
	require.Zero(t, stored("order-42"))
	assert.Equal(t, exitAbsent, execute(t, server.URL(), "", "show", "payments", "order-42").code)

	r = execute(t, server.URL(), "", "resolve", "payments", "order-45", "--value", `{"ID":"ch_9","Amount":7}`, "--yes", "-o", "json")
	require.Zero(t, r.code, r.err)
	var done settled
	require.NoError(t, json.Unmarshal([]byte(r.out), &done))
	assert.Equal(t, "resolved abandoned 2 web-7:4211", strings.Join([]string{done.Done, done.Was.State, string(rune('0' + done.Was.Attempt)), done.Was.Owner}, " "))
	type charge struct {
		ID     string
		Amount int64
	}
	x, err := idempotent.New[charge](client, "payments")
	require.NoError(t, err)
	defer x.Close()
	got, err := x.Get(t.Context(), "order-45")
	require.NoError(t, err)
	assert.Equal(t, charge{"ch_9", 7}, got)

	r = execute(t, server.URL(), "", "resolve", "payments", "order-41", "--value", "{}", "--yes")
	assert.Equal(t, exitFailed, r.code)
	assert.Contains(t, r.err, "an outcome is recorded already")
	r = execute(t, server.URL(), "", "resolve", "payments", "new", "--value", "{}", "--yes")
	assert.Equal(t, exitAbsent, r.code)
	r = execute(t, server.URL(), `"from stdin"`, "resolve", "payments", "new", "--value", "@-", "--absent", "--yes", "--codec", "json")
	require.Zero(t, r.code, r.err)
	assert.Contains(t, r.out, "absent")
}

func TestUsageErrors(t *testing.T) {
	server, _ := sampled(t)
	for _, args := range []string{
		"list --state gone", "list --batch 99999", "list --prefix x", "list x", "lst", "list --nothing", "show payments", "list -o yaml",
		"resolve payments order-42 --yes", "resolve payments order-42 --value { --yes", "resolve payments order-42 --value {} --codec gob --yes",
		"watch", "serve --listen 0.0.0.0:8090", "list --url http://x", "list --url redis+sentinel://x:1", "show a:b c", "check -n a:b",
	} {
		r := execute(t, server.URL(), "", strings.Fields(args)...)
		assert.Equal(t, exitUsage, r.code, "%s: %s", args, r.err)
		assert.True(t, strings.HasPrefix(r.err, "idempotent: "), "%s: %s", args, r.err)
		assert.Empty(t, r.out, args)
	}
	r := execute(t, "redis://user:secret@host:port/%", "", "list")
	assert.Equal(t, exitUsage, r.code)
	assert.NotContains(t, r.err, "secret")
}

func TestCheck(t *testing.T) {
	r := execute(t, redistest.Start(t).URL(), "", "check")
	assert.Equal(t, exitUnsafe, r.code)
	assert.Contains(t, r.out, "no-persistence")
	r = execute(t, redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction").URL(), "", "check")
	assert.Zero(t, r.code, r.out+r.err)
	r = execute(t, "redis://127.0.0.1:1", "", "check")
	assert.Equal(t, exitFailed, r.code)
}

func TestStats(t *testing.T) {
	server, _ := sampled(t)
	r := execute(t, server.URL(), "", "stats")
	require.Zero(t, r.code, r.err)
	assert.Contains(t, r.out, "8 in all")
	assert.Regexp(t, `payments +interrupted +1 +\d+ B +1d5h\n`, r.out)
}

func TestClusterAndSentinelURLs(t *testing.T) {
	server := redistest.Start(t, "--cluster-enabled", "yes")
	cluster := server.MakeCluster(t)
	require.NoError(t, sample.Store(t.Context(), cluster))
	url := strings.Replace(server.URL(), "redis://", "redis+cluster://", 1)
	r := execute(t, url, "", "list", "-o", "json")
	require.Zero(t, r.code, r.err)
	assert.Equal(t, 8, strings.Count(r.out, "\n"))
	assert.Contains(t, r.out, strings.TrimPrefix(server.Addr(), "127.0.0.1")+`"`)
	assert.Equal(t, 8, strings.Count(execute(t, server.URL(), "", "list", "-o", "json", "--cluster").out, "\n"))
	assert.Zero(t, execute(t, url, "", "forget", "payments", "order-42", "--yes").code)

	client, err := clientOf("redis+sentinel://user@10.0.0.1:26379/2?master_name=main", false)
	require.NoError(t, err)
	defer client.Close()
	assert.Equal(t, 2, client.(*redis.Client).Options().DB)
}
