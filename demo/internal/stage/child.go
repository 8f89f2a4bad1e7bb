package stage

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"
)

// A Child is a process of this program, run once more. It is to end when its standard input ends,
// which happens even when the parent is killed.
type Child struct {
	// Gone is closed once the process has ended and all it said is heard.
	Gone chan struct{}

	cmd    *exec.Cmd
	stdin  io.WriteCloser
	killed atomic.Bool
}

// Self is this program with other arguments.
func Self(args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// StartChild starts a process. read gets what it says on its standard output.
func StartChild(cmd *exec.Cmd, read func(stdout io.Reader)) (*Child, error) {
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &Child{Gone: make(chan struct{}), cmd: cmd, stdin: stdin}
	go func() {
		defer close(c.Gone)
		read(stdout)
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait()
	}()
	return c, nil
}

// StartSpeaker starts a process that says one line when it is ready. It comes on said, which is
// closed without one if the process ends.
func StartSpeaker(cmd *exec.Cmd) (c *Child, said <-chan string, err error) {
	lines := make(chan string, 1)
	c, err = StartChild(cmd, func(stdout io.Reader) {
		defer close(lines)
		if line, err := bufio.NewReader(stdout).ReadString('\n'); err == nil {
			lines <- strings.TrimSpace(line)
		}
	})
	return c, lines, err
}

// PID is the number of the process.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Kill is SIGKILL: the process gets no chance to say or to tidy up anything. What it said before is
// heard when Kill returns.
func (c *Child) Kill() {
	c.killed.Store(true)
	_ = c.cmd.Process.Kill()
	<-c.Gone
}

// Killed reports whether Kill was called.
func (c *Child) Killed() bool { return c.killed.Load() }

// Stop lets the process finish, for a moment.
func (c *Child) Stop(patience time.Duration) {
	_ = c.stdin.Close()
	select {
	case <-c.Gone:
	case <-time.After(patience):
		c.Kill()
	}
}
