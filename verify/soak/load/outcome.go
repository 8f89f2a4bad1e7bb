package load

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/verify/soak/history"
)

// A charge is what fn returns. It names its execution, so that whoever gets it knows whose it is.
type charge struct {
	Of   string
	Size int
	Pad  []byte
}

func newCharge(of string, size int) charge { return charge{Of: of, Size: size, Pad: pad(of, size)} }

// intact reports whether it is what that execution returned.
func (c *charge) intact() bool {
	want := pad(c.Of, c.Size)
	return string(want) == string(c.Pad)
}

func pad(of string, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = of[i%len(of)] + byte(i/len(of))
	}
	return b
}

// errDeclined is what fn fails with, errBusy when that is to be ignored, errBroken when it does not
// know what it did.
var (
	errDeclined = errors.New("declined")
	errBusy     = errors.New("busy")
	errBroken   = errors.New("connection broken")
)

func registry() *idempotent.ErrorRegistry {
	return idempotent.NewErrorRegistry(idempotent.Sentinel("declined", errDeclined), idempotent.Sentinel("busy", errBusy))
}

func failure(err error, of string) error { return fmt.Errorf("%w: execution <%s>", err, of) }

var originPattern = regexp.MustCompile(`<([^>]*)>`)

func origin(text string) string {
	if m := originPattern.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// describe says what a call came to. over is the error of its context.
func describe(value charge, err, over error, source idempotent.Source) (e history.Event) {
	e.Kind = history.Return
	if source != 0 {
		e.Source = source.String()
	}
	if err == nil {
		e.Result, e.Of, e.Intact = history.GotValue, value.Of, value.Of != "" && value.intact()
		return e
	}
	e.Of, e.Intact = origin(err.Error()), true
	if value.Of != "" {
		e.Of, e.Intact = value.Of, value.intact()
	}
	e.Result = name(err, over)
	if (e.Result == history.GotError || e.Result == history.GotIgnored) && source != idempotent.Executed && !errors.Is(err, idempotent.ErrReplayed) {
		e.Intact = false
	}
	if e.Result == history.Other || e.Result == history.Unavailable {
		e.Text = err.Error()
	}
	return e
}

// A naming is an error that a call may return.
type naming struct {
	err  error
	name history.Result
}

// own are those of the executor. Those of fn may be beside them.
var own = []naming{
	{idempotent.ErrLeaseLost, history.LeaseLost},
	{idempotent.ErrNotRecorded, history.NotRecorded},
	{idempotent.ErrCorruptRecord, history.Other},
	{idempotent.ErrClosed, history.Other},
	{idempotent.ErrInProgress, history.InProgress},
	{idempotent.ErrKeyReused, history.KeyReused},
	{idempotent.ErrInterrupted, history.Interrupted},
	{idempotent.ErrNotFound, history.NotFound},
	{idempotent.ErrAlreadyRecorded, history.AlreadyRecorded},
	{idempotent.ErrUnavailable, history.Unavailable},
}

var fns = []naming{
	{errDeclined, history.GotError},
	{errBusy, history.GotIgnored},
	{errBroken, history.GotUnknown},
}

func name(err, over error) history.Result {
	for _, n := range own {
		if errors.Is(n.err, idempotent.ErrUnavailable) && over != nil && errors.Is(err, over) {
			return history.ContextOver // of a wait, with the trouble there was
		}
		if errors.Is(err, n.err) {
			return n.name
		}
	}
	if _, ok := errors.AsType[*idempotent.PanicError](err); ok {
		return history.GotPanic
	}
	for _, n := range fns {
		if errors.Is(err, n.err) {
			return n.name
		}
	}
	if over != nil && errors.Is(err, over) {
		return history.ContextOver
	}
	return history.Other
}
