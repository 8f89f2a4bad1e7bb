package main

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Commands are counted however the client cuts them up into writes.
func TestCommandsAreCounted(t *testing.T) {
	const stream = "*2\r\n$5\r\nhello\r\n$1\r\n3\r\n" + // connection set-up
		"*3\r\n$3\r\nset\r\n$3\r\nkey\r\n$10\r\n*1\r\n$3\r\n\r\n\r\n" + // a value that looks like a command
		"*2\r\n$3\r\nGET\r\n$0\r\n\r\n" +
		"*1\r\n$9\r\nSUBSCRIBE\r\n*2\r\n$3\r\nget\r\n$1\r\nk\r\n"
	want := commands{"SET": 1, "GET": 2, "SUBSCRIBE": 1}
	for size := 1; size <= len(stream); size++ {
		counter := newCommandCounter()
		conn := &countedConn{Conn: sink{}, counter: counter}
		for rest := []byte(stream); len(rest) > 0; {
			n, err := conn.Write(rest[:min(size, len(rest))])
			require.NoError(t, err)
			rest = rest[n:]
		}
		require.Equal(t, want, counter.snapshot(), "in writes of %d bytes", size)
		assert.Empty(t, conn.pending)
	}
}

// A sink takes everything.
type sink struct{ net.Conn }

func (sink) Write(b []byte) (int, error) { return len(b), nil }
