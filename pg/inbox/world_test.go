package inbox_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/internal/pgtest"
	"github.com/idempotent-go/idempotent/pg"
	"github.com/idempotent-go/idempotent/pg/inbox"
	"github.com/idempotent-go/idempotent/webhook"
	"github.com/idempotent-go/idempotent/webhook/webhooktest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	pgtest.Cleanup()
	os.Exit(code)
}

// patience limits what a test waits for.
const patience = 30 * time.Second

// newPool returns a pool of a new database with this package's tables.
func newPool(t testing.TB, params string) *pgxpool.Pool {
	t.Helper()
	pool := connect(t, pgtest.Database(t)+params)
	require.NoError(t, pg.Migrate(t.Context(), pool))
	return pool
}

func connect(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	require.NoError(t, err)
	t.Cleanup(func() {
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			pool.Close()
		}()
		select {
		case <-closed:
		case <-time.After(patience):
			t.Errorf("%d connections of a pool are still in use %v after the test", pool.Stat().AcquiredConns(), patience)
		}
	})
	return pool
}

func newStore(t testing.TB, pool *pgxpool.Pool, opts ...inbox.Option) *inbox.Store {
	t.Helper()
	s, err := inbox.New(pool, "shop", opts...)
	require.NoError(t, err)
	return s
}

func TestStoreConforms(t *testing.T) {
	webhooktest.TestStore(t, func(t testing.TB) webhook.Store { return newStore(t, newPool(t, "")) })
}
