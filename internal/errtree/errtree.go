// Package errtree owns the walk through what an error wraps. It never calls Is or As of the errors
// package, because a foreign method that panics or an error that wraps itself must not end a run.
package errtree

import "reflect"

// maxNodes bounds the walk: an error that wraps itself would never end it.
const maxNodes = 10_000

// Walk calls visit with err and all it wraps, in the order of errors.Is and errors.As, until visit
// returns false. A panic in a method of a foreign error ends the walk.
func Walk(err error, visit func(node error) (next bool)) {
	defer func() { _ = recover() }()
	left := maxNodes
	walk(err, &left, visit)
}

func walk(err error, left *int, visit func(error) bool) bool {
	if err == nil || *left == 0 {
		return true
	}
	*left--
	if !visit(err) {
		return false
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return walk(e.Unwrap(), left, visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if !walk(inner, left, visit) {
				return false
			}
		}
	}
	return true
}

// Matches reports whether node itself is target, as errors.Is decides at each node of a tree.
func Matches(node, target error) bool {
	if reflect.TypeOf(node) == reflect.TypeOf(target) && reflect.ValueOf(node).Comparable() && node == target {
		return true
	}
	is, ok := node.(interface{ Is(error) bool })
	return ok && is.Is(target)
}
