// Command idempotent lists, shows and settles the operations of package idempotent, for engineers on call.
// docs/operations.md has the situations that it is for.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/present"
)

// The exit codes, which the help lists.
const (
	exitFailed    = 1 // Redis failed, or the key is not in a state for this
	exitUsage     = 2 // wrong flags or arguments
	exitAbsent    = 3 // nothing is stored under the key
	exitUnsafe    = 4 // check found something unsafe
	exitCancelled = 5 // the key was not typed
)

const exitHelp = `Exit codes:
  0  done
  1  Redis failed, or refused; the message says why
  2  wrong flags or arguments
  3  nothing is stored under the key
  4  check found something unsafe
  5  the key was not typed, nothing was done
`

var (
	errUnsafe    = errors.New("unsafe: see above")
	errCancelled = errors.New("nothing was done: the key was not typed")
)

// A usageError is the caller's mistake.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() {
	redis.SetLogger(silent{}) // what fails is in the error
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, newStreams(os.Stdin, os.Stdout, os.Stderr, os.Environ()), os.Args[1:])
	stop()
	os.Exit(code)
}

// silent is a go-redis logger that keeps stderr for this program.
type silent struct{}

// Printf writes nothing.
func (silent) Printf(context.Context, string, ...any) {}

// run is the whole program; its result is the exit code.
func run(ctx context.Context, s *streams, args []string) int {
	a := &app{streams: s}
	root := a.root()
	root.SetArgs(args)
	defer a.close()
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(s.err, "idempotent:", present.Text(present.Error(err)))
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage), errors.Is(err, idempotent.ErrInvalidOption), errors.Is(err, idempotent.ErrInvalidKey),
		strings.HasPrefix(err.Error(), "unknown command"): // cobra has no type for it
		return exitUsage
	case errors.Is(err, idempotent.ErrNotFound):
		return exitAbsent
	case errors.Is(err, errUnsafe):
		return exitUnsafe
	case errors.Is(err, errCancelled):
		return exitCancelled
	}
	return exitFailed
}
