package main

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/redistest"
)

var update = flag.Bool("update", false, "write the golden screens")

// clock finds what is not the same a while later: points in time, and what is left of the lease.
var clock = strings.NewReplacer("1h30m", "1h31m", "1h29m", "1h31m")

var instant = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

func golden(t *testing.T, name, screen string) {
	t.Helper()
	screen = instant.ReplaceAllString(clock.Replace(screen), "2026-11-27T09:41:00Z")
	path := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(screen), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), screen, "%s; -update writes it", path)
}

// binary builds the program.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "idempotent")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// A terminal is a tmux server of its own with one window.
type terminal struct {
	t      *testing.T
	socket string
}

func openTerminal(t *testing.T, width int, command string, env ...string) *terminal {
	t.Helper()
	term := &terminal{t, filepath.Join(t.TempDir(), "tmux")}
	args := []string{"-f", os.DevNull, "new-session", "-d", "-x", fmt.Sprint(width), "-y", "24"}
	for _, pair := range env {
		args = append(args, "-e", pair)
	}
	term.tmux(append(args, command+"; tmux -S "+term.socket+" wait-for -S done; cat")...)
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", term.socket, "kill-server").Run() })
	return term
}

func (term *terminal) tmux(args ...string) string {
	term.t.Helper()
	out, err := exec.CommandContext(term.t.Context(), "tmux", append([]string{"-S", term.socket}, args...)...).CombinedOutput()
	require.NoError(term.t, err, "needs tmux: run scripts/ensure-tmux; %s", out)
	return string(out)
}

// ended returns the screen when the command has ended; with escapes, colours are in it.
func (term *terminal) ended(escapes ...string) string {
	term.t.Helper()
	term.tmux("wait-for", "done")
	return term.screen(escapes...)
}

func (term *terminal) screen(escapes ...string) string {
	term.t.Helper()
	return strings.TrimRight(term.tmux(append([]string{"capture-pane", "-p"}, escapes...)...), "\n") + "\n"
}

// shows returns the screen when it has a text.
func (term *terminal) shows(text string) (screen string) {
	term.t.Helper()
	require.Eventually(term.t, func() bool {
		screen = term.screen()
		return strings.Contains(screen, text)
	}, time.Minute, 20*time.Millisecond, "%s", text)
	return screen
}

func TestScreens(t *testing.T) {
	program := binary(t)
	server, client := sampled(t)
	env := []string{"IDEMPOTENT_REDIS_URL=" + server.URL(), "TERM=tmux-256color"}
	commands := map[string]string{"list": "list", "show": "show payments order-42", "stats": "stats"}
	for name, args := range commands {
		for _, width := range []int{80, 160} {
			t.Run(fmt.Sprint(name, " ", width), func(t *testing.T) {
				golden(t, fmt.Sprint(name, "-", width), openTerminal(t, width, program+" "+args, env...).ended())
			})
		}
		t.Run(name+" in a pipe", func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), program, strings.Fields(args)...)
			cmd.Env = append(os.Environ(), env...)
			out, err := cmd.Output()
			require.NoError(t, err)
			assert.NotContains(t, string(out), "\x1b")
			golden(t, name+"-pipe", string(out))
		})
	}
	t.Run("colours", func(t *testing.T) {
		assert.Contains(t, openTerminal(t, 160, program+" list", env...).ended("-e"), "\x1b[35minterrupted")
		plain := openTerminal(t, 160, program+" list", append(env, "NO_COLOR=1")...)
		assert.NotRegexp(t, `\x1b\[(3[0-7]|9[0-7]|[0-9;]*[34]8;)`, plain.ended("-e"))
		golden(t, "list-160", plain.screen())
	})
	for _, width := range []int{80, 160} {
		t.Run(fmt.Sprint("watch ", width), func(t *testing.T) {
			term := openTerminal(t, width, program+" watch --interval 50ms", env...)
			golden(t, fmt.Sprint("watch-", width), term.shows("order-43"))
			require.NoError(t, client.Rename(t.Context(), "idempotent:payments:order-43", "idempotent:payments:order-99").Err())
			term.shows("order-99")
			require.NoError(t, client.Rename(t.Context(), "idempotent:payments:order-99", "idempotent:payments:order-43").Err())
			term.tmux("send-keys", "q")
			term.ended()
		})
	}
	t.Run("forget asks", func(t *testing.T) {
		term := openTerminal(t, 80, program+" forget payments order-45", env...)
		golden(t, "forget-80", term.shows("Type the key"))
		term.tmux("send-keys", "order-45", "Enter")
		assert.Contains(t, term.ended(), "forgotten; it was:")
	})
}

func TestServe(t *testing.T) {
	program := binary(t)
	server := redistest.Start(t)
	cmd := exec.CommandContext(t.Context(), program, "serve", "--listen", "127.0.0.1:0", "--url", server.URL())
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var url string
	_, err = fmt.Fscanln(out, &url)
	require.NoError(t, err)
	get := func(host string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		require.NoError(t, err)
		request.Host = host
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		_ = response.Body.Close()
		return response.StatusCode
	}
	assert.Equal(t, http.StatusOK, get(""))
	assert.Equal(t, http.StatusForbidden, get("attacker.example"), "a name that was made to point here")
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.NoError(t, cmd.Wait())
}
