package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asProgram makes this test binary the example itself.
const asProgram = "HTTP_EXAMPLE_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// start runs the example and returns its address, once it listens.
func start(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "-addr", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), asProgram+"=yes")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		require.NoError(t, cmd.Wait(), "it ends as it should")
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if addr, ok := strings.CutPrefix(lines.Text(), "listening http://"); ok {
			return addr
		}
	}
	t.Fatal("it does not listen")
	return ""
}

// A command is one of the README, with what must be in its output.
type command struct {
	line string
	want []string
}

func readme(t *testing.T) (commands []command) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	inside := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case !inside:
		case strings.HasPrefix(line, "$ "):
			commands = append(commands, command{line: line[2:]})
		default:
			last := &commands[len(commands)-1]
			last.want = append(last.want, line)
		}
	}
	return commands
}

func TestCommandsOfTheReadme(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl on PATH")
	}
	addr := start(t)
	commands := readme(t)
	require.Greater(t, len(commands), 10)
	for _, c := range commands {
		t.Log(c.line)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		line := strings.ReplaceAll(c.line, "localhost:8080", addr)
		cmd := exec.CommandContext(ctx, "sh", "-c", line)
		cmd.Env = append(os.Environ(), "no_proxy=*")
		out, err := cmd.Output()
		cancel()
		if len(c.want) == 0 { // the client gives up
			assert.Error(t, err)
			continue
		}
		require.NoError(t, err, "%s", out)
		for _, want := range c.want {
			assert.Contains(t, string(out), want)
		}
		if !strings.Contains(strings.Join(c.want, "\n"), "Replayed") {
			assert.NotContains(t, string(out), "Idempotent-Replayed: true")
		}
	}
}
