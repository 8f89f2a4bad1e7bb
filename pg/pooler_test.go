package pg_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/pgtest"
	"github.com/idempotent-go/idempotent/pg"
)

func itoa(port uint16) string { return strconv.Itoa(int(port)) }

// pgbouncer starts one in transaction mode in front of the world's database, with size connections to it, and returns its
// address.
func (w *world) pgbouncer(size int) string {
	w.Helper()
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		path = "/usr/sbin/pgbouncer"
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") != "" {
			w.Fatal("needs pgbouncer (scripts/ensure-postgres)")
		}
		w.Skip("needs pgbouncer (scripts/ensure-postgres)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w, err)
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	require.NoError(w, l.Close())
	dir, err := os.MkdirTemp("", "pgbouncer")
	require.NoError(w, err)
	w.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(w, os.Chmod(dir, 0o755))
	c := w.pool.Config().ConnConfig
	config := filepath.Join(dir, "pgbouncer.ini")
	require.NoError(w, os.WriteFile(config, fmt.Appendf(nil, `[databases]
%s = host=127.0.0.1 port=%d user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = %d
`, c.Database, c.Port, port, size), 0o644))
	cmd := exec.Command(path, config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: pgtest.ServerUser(), Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StderrPipe()
	require.NoError(w, err)
	require.NoError(w, cmd.Start())
	w.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	up := make(chan error, 1)
	go func() {
		var log strings.Builder
		for lines := bufio.NewScanner(out); lines.Scan(); {
			log.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), "process up") {
				up <- nil
				_, _ = io.Copy(io.Discard, out) // until it is killed: it stops when nothing reads its log
				return
			}
		}
		up <- fmt.Errorf("pgbouncer did not start:\n%s", &log)
	}()
	require.NoError(w, await(w, up, "pgbouncer"))
	return addr
}

func TestPgbouncerInTransactionMode(t *testing.T) {
	for _, mode := range []string{"exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			addr := w.pgbouncer(4)
			pool := w.connect(pgtest.URL(addr, w.pool.Config().ConnConfig.Database) + "&pool_max_conns=30&default_query_exec_mode=" + mode)
			registry := idempotent.NewErrorRegistry(idempotent.Sentinel("declined", errDeclined))
			e, err := pg.New[int](pool, "orders", pg.WithErrors(registry), pg.WithIdleTimeout(5*time.Second))
			require.NoError(t, err)
			const keys, callers = 20, 5
			var wg sync.WaitGroup
			charges := make([]*charge, keys)
			for i := range charges {
				c := newCharge(fmt.Sprint(i))
				if i%4 == 0 {
					c.then = failing
				}
				charges[i] = c
				for range callers {
					wg.Go(func() {
						value, err := e.Run(w.ctx, c.key, c.run)
						if c.then != nil {
							assert.ErrorIs(t, err, errDeclined)
							return
						}
						assert.NoError(t, err)
						assert.Equal(t, 1, value)
					})
				}
			}
			wg.Wait()
			for _, c := range charges {
				want := 1
				if c.then != nil {
					want = 0
				}
				assert.Equal(t, want, w.effects(c.key), c.key)
				assert.EqualValues(t, 1, c.calls.Load())
			}
			assert.Equal(t, keys, w.records())
			var locks int
			require.NoError(t, w.pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&locks))
			assert.Zero(t, locks)
			var idle string
			require.NoError(t, pool.QueryRow(t.Context(), `SHOW idle_in_transaction_session_timeout`).Scan(&idle))
			assert.Equal(t, "0", idle)
		})
	}
}
