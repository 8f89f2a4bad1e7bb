package pg

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Migrations has the files migrations/*.sql. Each starts with its number, as goose expects it, and can be run by
// [Migrate], by goose or by hand. Use one of these ways for a database: each keeps its own list of what it has run.
//
//go:embed migrations/*.sql
var Migrations embed.FS

const versionTable = `CREATE TABLE IF NOT EXISTS idempotent_migrations (
	version    integer     PRIMARY KEY,
	applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)`

// Migrate creates the tables, or changes those of an older version of this package, in one transaction. Any number of
// processes may call it at the same time, and it may be called again. The tables are created in the first schema of the
// pool's search_path.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	if pool == nil {
		return invalid("Migrate", "pool", "nil", "a pool")
	}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// Two processes that create the same table at once fail, in spite of IF NOT EXISTS.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, lockID("idempotent_migrations", "")); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, versionTable); err != nil {
			return err
		}
		var done int
		if err := tx.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM idempotent_migrations`).Scan(&done); err != nil {
			return err
		}
		return migrateFrom(ctx, tx, done)
	})
	if err != nil {
		return fmt.Errorf("pg: migrate: %w", err)
	}
	return nil
}

// migrateFrom runs the migrations after version done. A migration is never changed once it is released.
func migrateFrom(ctx context.Context, tx pgx.Tx, done int) error {
	files, err := fs.Glob(Migrations, "migrations/*.sql") // sorted
	if err != nil {
		return err
	}
	for _, file := range files {
		number, _, _ := strings.Cut(path.Base(file), "_")
		version, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		if version <= done {
			continue
		}
		text, err := Migrations.ReadFile(file)
		if err != nil {
			return err
		}
		up, _, _ := strings.Cut(string(text), "-- +goose Down")
		// Without arguments, pgx sends the text as it is: all of its statements.
		if _, err := tx.Exec(ctx, up); err != nil {
			return fmt.Errorf("%s: %w", path.Base(file), err)
		}
		if _, err := tx.Exec(ctx, `INSERT INTO idempotent_migrations (version) VALUES ($1)`, version); err != nil {
			return err
		}
	}
	return nil
}
