// Package errtree walks the tree of an error, as errors.Is and errors.As do, without trusting the
// methods of the errors in it. It never changes an error and never formats one.
package errtree

import (
	"fmt"
	"reflect"
)

// maxNodes keeps an error that wraps itself from taking the process down.
const maxNodes = 10_000

// Walk calls visit with err and what it wraps, in the order in which errors.Is and errors.As look,
// until it returns false. A node whose methods panic, such as a nil pointer, costs itself and what it
// wraps, and no other node: an error marked beside it must still be found.
func Walk(err error, visit func(node error) (next bool)) {
	left := maxNodes
	visitAll(err, &left, visit)
}

func visitAll(err error, left *int, visit func(error) bool) bool {
	if err == nil || *left == 0 {
		return true
	}
	*left--
	if !safely(err, visit) {
		return false
	}
	many, one := unwrap(err)
	if one != nil {
		return visitAll(one, left, visit)
	}
	for _, inner := range many {
		if !visitAll(inner, left, visit) {
			return false
		}
	}
	return true
}

func safely(node error, visit func(error) bool) (next bool) {
	next = true //nolint:wastedassign // a node whose methods panic is passed over
	defer func() { _ = recover() }()
	return visit(node)
}

func unwrap(err error) (many []error, one error) {
	defer func() { _ = recover() }()
	switch e := err.(type) { //nolint:errorlint // this is one node of the tree that Walk visits
	case interface{ Unwrap() error }:
		return nil, e.Unwrap()
	case interface{ Unwrap() []error }:
		return e.Unwrap(), nil
	}
	return nil, nil
}

// Matches reports whether node itself matches target, as errors.Is decides at each node of a tree.
func Matches(node, target error) bool {
	if reflect.TypeOf(node) == reflect.TypeOf(target) && reflect.ValueOf(node).Comparable() && node == target { //nolint:errorlint // it decides for one node, as errors.Is does
		return true
	}
	is, ok := node.(interface{ Is(error) bool })
	return ok && is.Is(target)
}

// Contains reports whether a node of err's tree matches one of targets.
func Contains(err error, targets ...error) (found bool) {
	Walk(err, func(node error) bool {
		for _, target := range targets {
			found = found || Matches(node, target)
		}
		return !found
	})
	return found
}

// Text is err.Error(), also for an error whose method panics, as that of a nil pointer may.
func Text(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = fmt.Sprintf("error of type %T, whose Error method panics", err)
		}
	}()
	return err.Error()
}
