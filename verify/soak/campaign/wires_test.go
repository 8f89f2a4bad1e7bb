package campaign

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// echo is a server that says what it hears.
func echo(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
	return listener.Addr().String()
}

func wired(t *testing.T) (*wires, net.Conn) {
	t.Helper()
	server := echo(t)
	w, err := newWires([]string{server}, func(string) { t.Error("the proxy was replaced") })
	require.NoError(t, err)
	t.Cleanup(w.close)
	conn, err := net.Dial("tcp", w.addresses()[server])
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	return w, conn
}

func exchange(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(conn, text)
	require.NoError(t, err)
	expect(t, conn, text)
}

func expect(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	_, err := io.ReadFull(conn, got)
	require.NoError(t, err)
	assert.Equal(t, text, string(got))
}

// What was held back passes, in order, when its time has come or when the toxic goes away.
func TestHoldDelivers(t *testing.T) {
	for _, stream := range []string{"upstream", "downstream"} {
		t.Run(stream, func(t *testing.T) {
			w, conn := wired(t)
			exchange(t, conn, "before")
			require.NoError(t, w.poison(toxic{Type: holdType, Stream: stream, Toxicity: 1, Attributes: map[string]int{"hold": 50}}))
			began := time.Now()
			exchange(t, conn, "late")
			assert.GreaterOrEqual(t, time.Since(began), 50*time.Millisecond)
			require.NoError(t, w.heal())

			require.NoError(t, w.poison(toxic{Type: holdType, Stream: stream, Toxicity: 1, Attributes: map[string]int{"hold": 3_600_000}}))
			_, err := io.WriteString(conn, "an hour")
			require.NoError(t, err)
			require.NoError(t, w.heal())
			expect(t, conn, "an hour")
			exchange(t, conn, "after")
		})
	}
}

// A worker that was killed does not keep the toxic from going away.
func TestHoldLetsGoOfTheDead(t *testing.T) {
	w, conn := wired(t)
	exchange(t, conn, "before")
	require.NoError(t, w.poison(toxic{Type: holdType, Stream: "downstream", Toxicity: 1, Attributes: map[string]int{"hold": 3_600_000}}))
	for range 100 {
		_, err := io.WriteString(conn, "something")
		require.NoError(t, err)
	}
	require.NoError(t, conn.Close())
	require.NoError(t, w.heal())
}

// A reset after execution: the server got the request, the worker no reply.
func TestResetAfterExecution(t *testing.T) {
	w, conn := wired(t)
	exchange(t, conn, "before")
	require.NoError(t, w.poison(toxic{Type: "reset_peer", Stream: "downstream", Toxicity: 1, Attributes: map[string]int{"timeout": 0}}))
	_, err := io.WriteString(conn, "executed")
	require.NoError(t, err)
	_, err = conn.Read(make([]byte, 1))
	require.Error(t, err)
	require.NoError(t, w.heal())
}
