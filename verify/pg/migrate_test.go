package pg_test

import (
	"context"
	"fmt"
	"io/fs"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/idempotent-go/idempotent/internal/pgtest"
	"github.com/idempotent-go/idempotent/pg"
)

// goose runs the same files: up, down and up again.
func TestGooseRunsTheMigrations(t *testing.T) {
	h := openHarness(t, pgtest.Database(t))
	files, err := fs.Sub(pg.Migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDBFromPool(h.pool)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files)
	if err != nil {
		t.Fatal(err)
	}
	ctx := h.ctx
	for range 2 {
		if _, err := provider.Up(ctx); err != nil {
			t.Fatal(err)
		}
		e, err := pg.New[int](h.pool, "goose")
		if err != nil {
			t.Fatal(err)
		}
		value, err := e.Run(ctx, "key", func(context.Context, pgx.Tx) (int, error) { return 7, nil })
		if err != nil || value != 7 {
			t.Fatal(value, err)
		}
		if _, err := provider.DownTo(ctx, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkSize reports the bytes of a record in the table and its indexes, for a value of 100 bytes.
func BenchmarkSize(b *testing.B) {
	h := newHarness(b, pgtest.Database(b))
	e, err := pg.New[string](h.pool, "size")
	if err != nil {
		b.Fatal(err)
	}
	const records = 5000
	value := fmt.Sprintf("%0100d", 1)
	for b.Loop() {
		for i := range records {
			if _, err := e.Run(h.ctx, strconv.Itoa(i), func(context.Context, pgx.Tx) (string, error) { return value, nil }); err != nil {
				b.Fatal(err)
			}
		}
	}
	var size int64
	if err := h.pool.QueryRow(h.ctx, `SELECT pg_total_relation_size('idempotent_records')`).Scan(&size); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(size)/records, "bytes/record")
}
