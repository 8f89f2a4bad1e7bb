// Package errreg owns how the errors of fn are stored and restored: the definitions of a registry, the
// search for registered errors in the tree of an error, and the bytes that a record has of them. It never
// decides whether an error is recorded, and what one means.
package errreg

import (
	"fmt"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/idempotent-go/idempotent/internal/errtree"
)

// A Def is one error, or one kind of errors, of a Registry.
type Def struct {
	Code string
	// Match returns what to store of a node of an error tree, if this definition covers the node.
	Match func(node error) (data []byte, ok bool, err error)
	// Restore makes the error of what Match returned.
	Restore func(data []byte) (error, error)
	// Foreign says that the error is another package's, and not a statement of the program's own about
	// what its fn did.
	Foreign bool
	// Once says that one match is as good as many.
	Once bool
}

// A Registry knows errors by codes. It does not change once it is made.
type Registry struct {
	defs map[string]Def
	list []Def
}

// New returns a registry, and the codes that are defined twice.
func New(defs []Def) (r *Registry, twice []string) {
	r = &Registry{defs: make(map[string]Def, len(defs)), list: defs}
	for _, d := range defs {
		if _, taken := r.defs[d.Code]; taken {
			twice = append(twice, d.Code)
		}
		r.defs[d.Code] = d
	}
	return r, twice
}

// Covers reports whether err holds a registered error, which by that has a known meaning.
func (r *Registry) Covers(err error) (found bool) {
	for _, d := range r.list {
		if d.Foreign {
			continue
		}
		errtree.Walk(err, func(node error) bool {
			_, found, _ = d.Match(node)
			return !found
		})
		if found {
			return true
		}
	}
	return false
}

// A Stored is what a record has of an error.
type Stored struct {
	Text  string  `msgpack:"t"`
	Stack []byte  `msgpack:"s,omitempty"` // of a panic
	Found []match `msgpack:"k,omitempty"`
	Retry bool    `msgpack:"r,omitempty"` // the error is retryable; such an error is shared, if at all
}

// A match is one registered error found in the tree. A flat list will do: errors.Is and errors.As look
// for matches, not for the shape of the tree.
type match struct {
	Code string `msgpack:"c"`
	Data []byte `msgpack:"d,omitempty"`
}

const (
	// maxMatches is how many errors of one kind are stored; errors.As finds the first one.
	maxMatches = 100
	maxStack   = 4 << 10
)

// Encode returns the payload of a record: s, and the registered errors in err. lost gets the codes of
// those that cannot be stored.
func (r *Registry) Encode(s Stored, err error, lost func(code string)) []byte {
	s.Stack, s.Found = s.Stack[:min(len(s.Stack), maxStack)], r.find(err, lost)
	data, encErr := msgpack.Marshal(&s)
	if encErr != nil { // strings and bytes always encode
		panic(encErr)
	}
	return data
}

func (r *Registry) find(err error, lost func(code string)) (found []match) {
	for _, d := range r.list {
		left := maxMatches
		errtree.Walk(err, func(node error) bool {
			data, ok, err := d.Match(node)
			switch {
			case err != nil:
				lost(d.Code)
			case ok:
				found = append(found, match{Code: d.Code, Data: data})
				left--
			}
			return !ok || !d.Once && left > 0
		})
	}
	return found
}

// Decode reads a payload, and restores the registered errors in it. lost gets the codes of those that are
// not registered any more, or that cannot be restored: they cost their match, not the replay.
func (r *Registry) Decode(payload []byte, lost func(code string)) (s Stored, known []error, err error) {
	if err := msgpack.Unmarshal(payload, &s); err != nil {
		return s, nil, err
	}
	for _, m := range s.Found {
		d, ok := r.defs[m.Code]
		if !ok {
			lost(m.Code)
			continue
		}
		restored, err := restore(d, m.Data)
		if err != nil {
			lost(m.Code)
			continue
		}
		known = append(known, restored)
	}
	return s, known, nil
}

func restore(d Def, data []byte) (known, err error) {
	defer func() {
		if p := recover(); p != nil {
			known, err = nil, fmt.Errorf("panic: %v", p)
		}
	}()
	return d.Restore(data)
}
