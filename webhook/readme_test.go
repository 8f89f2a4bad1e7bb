package webhook_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/redistest"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

// The first program of the README has at most 25 lines of code, and handles a verified Stripe event.
func TestReadmeProgram(t *testing.T) {
	t.Parallel() // it mostly waits for the compiler
	page, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, program, found := strings.Cut(string(page), "```go\n")
	require.True(t, found)
	program, _, _ = strings.Cut(program, "```")
	code := 0
	for line := range strings.Lines(program) {
		if strings.TrimSpace(line) != "" {
			code++
		}
	}
	assert.LessOrEqual(t, code, 25)

	server := redistest.Start(t, "--appendonly", "yes")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	for was, is := range map[string]string{`"localhost:6379"`: `"` + server.Addr() + `"`, `":8080"`: `"` + addr + `"`} {
		require.Contains(t, program, was)
		program = strings.ReplaceAll(program, was, is)
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "program"), filepath.Join(dir, "main.go")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "program"))
	cmd.Env = append(os.Environ(), "STRIPE_WEBHOOK_SECRET="+secret)
	said, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })

	event := stripeBody("evt_readme", "payment_intent.succeeded", "pi_1", "")
	assert.Equal(t, http.StatusBadRequest, postTo(t, addr, event, "another secret"))
	assert.Equal(t, http.StatusOK, postTo(t, addr, event, secret))
	line, err := bufio.NewReader(said).ReadString('\n')
	require.NoError(t, err)
	assert.Contains(t, line, "payment_intent.succeeded evt_readme")
}

// postTo posts a signed event to a program that may not listen yet, and returns the status.
func postTo(t *testing.T, addr string, body []byte, secret string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		header, _, err := webhooktest.Stripe(secret)(body, time.Now())
		require.NoError(t, err)
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/webhooks/stripe", bytes.NewReader(body))
		require.NoError(t, err)
		r.Header = header
		resp, err := http.DefaultClient.Do(r)
		if err == nil {
			require.NoError(t, resp.Body.Close())
			return resp.StatusCode
		}
		select {
		case <-ctx.Done():
			require.NoError(t, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
