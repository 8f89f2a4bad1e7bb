// Package adapter is what idemhttp and its adapters for frameworks agree on.
package adapter

import (
	"context"
	"net/http"
	"reflect"
	"runtime"
	"strings"
)

type frameworkKey struct{}

// With returns a context with the framework's own context, for the handler that the adapter wraps.
func With(ctx context.Context, framework any) context.Context {
	return context.WithValue(ctx, frameworkKey{}, framework)
}

// From returns the framework's context, which With has put there.
func From[C any](ctx context.Context) C {
	c, _ := ctx.Value(frameworkKey{}).(C)
	return c
}

// Misused reports whether a request comes straight from echo.WrapMiddleware. It renders the error that a
// handler returns after its middlewares are done, so that an empty response would be recorded instead.
func Misused(w http.ResponseWriter, r *http.Request) bool {
	t := reflect.TypeOf(w)
	if t == nil || t.Kind() != reflect.Pointer || !strings.HasPrefix(t.Elem().PkgPath(), ofEcho) || r.Context().Value(frameworkKey{}) != nil {
		return false
	}
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		frame, more := frames.Next()
		// A closure of a function that was inlined has the name of its caller, too, and its own file.
		if strings.Contains(frame.File, ofEcho) { // echo.WrapHandler, for instance
			return strings.Contains(frame.Function, ".WrapMiddleware.")
		}
		if !more {
			return false
		}
	}
}

const ofEcho = "github.com/labstack/echo/"

// Written reports whether a framework's writer, such as gin's, knows that something has been written to
// it. Other writers do not know.
func Written(w http.ResponseWriter) bool {
	known, ok := w.(interface{ Written() bool })
	return ok && known.Written()
}
