package errtree

import "reflect"

// maxErrorNodes keeps an error that wraps itself from taking the process down.
const maxErrorNodes = 10_000

// visitErrors calls visit with err and what it wraps, in the order in which errors.Is and errors.As
// look, until it returns false. A method of a foreign error that panics ends the visit, as it ends
// theirs.
func Walk(err error, visit func(node error) (next bool)) {
	defer func() { _ = recover() }()
	left := maxErrorNodes
	walkErrors(err, &left, visit)
}

func walkErrors(err error, left *int, visit func(error) bool) bool {
	if err == nil || *left == 0 {
		return true
	}
	*left--
	if !visit(err) {
		return false
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return walkErrors(e.Unwrap(), left, visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if !walkErrors(inner, left, visit) {
				return false
			}
		}
	}
	return true
}

// isNode is what errors.Is does at each node of a tree.
func Matches(node, target error) bool {
	if reflect.TypeOf(node) == reflect.TypeOf(target) && reflect.ValueOf(node).Comparable() && node == target {
		return true
	}
	is, ok := node.(interface{ Is(error) bool })
	return ok && is.Is(target)
}
