package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// A tally is how many commands Redis executed: those that clients sent, and those that scripts
// called. INFO commandstats has both under the same names, so the second are counted with MONITOR,
// which marks them.
type tally struct {
	sent, inner int
}

// text is the tally for each of n operations.
func (t tally) text(n int) string {
	s := trimmed(float64(t.sent) / float64(n))
	if t.inner > 0 {
		s += " (+" + trimmed(float64(t.inner)/float64(n)) + ")"
	}
	return s
}

func trimmed(x float64) string {
	return strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(x, 'f', 2, 64), "0"), ".")
}

// overhead are commands that make a connection usable, and those of the measuring itself.
var overhead = map[string]bool{
	"hello": true, "client": true, "ping": true, "info": true, "config": true, "echo": true, "monitor": true,
	"command": true, "pubsub": true, "script": true, "unlink": true, "select": true, "quit": true, "memory": true,
}

// parseCommandStats reads INFO commandstats: the calls of each command, without the overhead.
func parseCommandStats(info string) (map[string]int, error) {
	calls := make(map[string]int)
	for line := range strings.Lines(info) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "cmdstat_"), ":calls=")
		command, _, _ := strings.Cut(name, "|")
		if !ok || overhead[command] {
			continue
		}
		number, _, _ := strings.Cut(rest, ",")
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("INFO commandstats has %q, not a number of calls", strings.TrimSpace(line))
		}
		calls[name] += n
	}
	return calls, nil
}

func total(calls map[string]int) (n int) {
	for _, c := range calls {
		n += c
	}
	return n
}

// monitored is a line of MONITOR: the name of the command, and whether a script called it.
func monitored(line string) (command string, inner bool) {
	_, rest, ok := strings.Cut(line, " [")
	if !ok {
		return "", false
	}
	source, args, ok := strings.Cut(rest, "] \"")
	if !ok {
		return "", false
	}
	command, _, _ = strings.Cut(args, "\"")
	return strings.ToLower(command), strings.HasSuffix(source, " lua")
}

// count tallies what Redis executes while do runs.
func (e *env) count(do func() error) (tally, error) {
	m, err := startMonitor(e.server.Addr())
	if err != nil {
		return tally{}, err
	}
	defer m.conn.Close()
	if err := e.admin.ConfigResetStat(context.Background()).Err(); err != nil {
		return tally{}, err
	}
	if err := do(); err != nil {
		return tally{}, err
	}
	info, err := e.admin.Info(context.Background(), "commandstats").Result()
	if err != nil {
		return tally{}, err
	}
	calls, err := parseCommandStats(info)
	if err != nil {
		return tally{}, err
	}
	if err := e.admin.Echo(context.Background(), lastLine).Err(); err != nil {
		return tally{}, err
	}
	inner, err := m.inner()
	return tally{sent: total(calls) - inner, inner: inner}, err
}

const lastLine = "end of the count"

// A monitor listens to everything that Redis executes, and keeps nothing of it.
type monitor struct {
	conn  net.Conn
	count chan int // what scripts called, when the last line has come; closed when there is no more
}

func startMonitor(addr string) (*monitor, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	m := &monitor{conn: conn, count: make(chan int, 1)}
	in := bufio.NewReader(conn)
	if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if ok, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(ok, "+OK") {
		return nil, errors.Join(fmt.Errorf("MONITOR answered %q: %w", ok, err), conn.Close())
	}
	go m.read(in)
	return m, nil
}

// read ends with the last line or the connection.
func (m *monitor) read(in *bufio.Reader) {
	defer close(m.count)
	for n := 0; ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if strings.Contains(line, lastLine) {
			m.count <- n
			return
		}
		if _, lua := monitored(line); lua {
			n++
		}
	}
}

// inner is what scripts called until the last line.
func (m *monitor) inner() (int, error) {
	n, ok := <-m.count
	if !ok {
		return 0, errors.New("the connection of MONITOR ended before the count")
	}
	return n, nil
}
