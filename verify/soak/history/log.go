package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// A Log is a history that is being written. It numbers events and gives them their time, one after
// the other, so their order is that of their times.
type Log struct {
	began time.Time

	mu    sync.Mutex
	file  *os.File
	out   *bufio.Writer
	seq   int64
	last  time.Duration
	err   error
	heard func(Event)
}

// Create makes the file of a history. heard, if not nil, is told of each event, in order.
func Create(path string, heard func(Event)) (*Log, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &Log{began: time.Now(), file: file, out: bufio.NewWriterSize(file, 1<<16), heard: heard}, nil
}

// Now is the log's clock.
func (l *Log) Now() time.Duration { return time.Since(l.began) }

// Append writes one event and returns it with its number and time.
func (l *Log) Append(e Event) Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Seq, e.At = l.seq, max(l.Now(), l.last)
	l.last = e.At
	line, err := json.Marshal(e)
	if err == nil {
		_, err = l.out.Write(append(line, '\n'))
	}
	l.err = errors.Join(l.err, err)
	if l.heard != nil {
		l.heard(e)
	}
	return e
}

// Close writes what is left and returns the first thing that went wrong.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.err, l.out.Flush(), l.file.Close())
}

// Serve takes events from workers until the listener is closed and every worker has gone.
func (l *Log) Serve(listener net.Listener) {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		open.Go(func() {
			defer conn.Close()
			l.take(conn)
		})
	}
}

// take reads events and acknowledges each with one byte. A worker that is killed ends it; half a
// line of it is no event.
func (l *Log) take(conn io.ReadWriter) {
	in := json.NewDecoder(conn)
	for {
		var e Event
		if in.Decode(&e) != nil {
			return
		}
		l.Append(e)
		if _, err := conn.Write([]byte{'\n'}); err != nil {
			return
		}
	}
}

// A Recorder is a worker's end of a history. It has a few connections, so that one report need not
// wait for the acknowledgement of another.
type Recorder struct {
	topology, proc string
	idle           chan net.Conn
}

const recorderConns = 8

// Dial connects a worker to the provider.
func Dial(address, topology, proc string) (*Recorder, error) {
	r := &Recorder{topology: topology, proc: proc, idle: make(chan net.Conn, recorderConns)}
	for range recorderConns {
		conn, err := net.Dial("unix", address)
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		r.idle <- conn
	}
	return r, nil
}

// Record returns when the provider has the event. It ends the process when there is no provider:
// what a worker does then, nobody would know.
func (r *Recorder) Record(e Event) {
	e.Topology, e.Proc = r.topology, r.proc
	line, err := json.Marshal(e)
	if err == nil {
		conn := <-r.idle
		defer func() { r.idle <- conn }()
		if _, err = conn.Write(append(line, '\n')); err == nil {
			_, err = io.ReadFull(conn, make([]byte, 1))
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "soak: worker %s: the provider is gone: %v\n", r.proc, err)
		os.Exit(3)
	}
}

// Close hangs up. Nothing may be recorded any more.
func (r *Recorder) Close() (err error) {
	for range len(r.idle) {
		err = errors.Join(err, (<-r.idle).Close())
	}
	return err
}

// Read reads a history.
func Read(path string) ([]Event, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var events []Event
	for in := json.NewDecoder(bufio.NewReaderSize(file, 1<<16)); ; {
		var e Event
		switch err := in.Decode(&e); {
		case errors.Is(err, io.EOF):
			return events, nil
		case err != nil:
			return nil, fmt.Errorf("event %d of %s: %w", len(events)+1, path, err)
		}
		events = append(events, e)
	}
}
