// Package guard keeps a caller's function from ending the transaction that it is given.
package guard

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

// ErrEnded is what Commit and Rollback return.
var ErrEnded = errors.New("pg: fn must not commit or roll back the transaction; Run does")

// A Tx is a transaction that only its owner ends. Touched says that another one tried to.
type Tx struct {
	pgx.Tx
	Touched bool
}

// Commit refuses.
func (t *Tx) Commit(context.Context) error {
	t.Touched = true
	return ErrEnded
}

// Rollback refuses.
func (t *Tx) Rollback(context.Context) error {
	t.Touched = true
	return ErrEnded
}
