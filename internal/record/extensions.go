package record

import "slices"

// Extensions is a record's room for fields that not every version of this library knows. Each is a
// number (1 byte), a length (1 byte, not 0) and so many bytes; the numbers ascend. Code skips the fields
// that it does not know, and keeps them when it rewrites the record.
//
// Extensions do not change once they are made: records share them.
type Extensions []byte

// A Field is the number of one extension.
type Field byte

const (
	// FieldOwner names the process that runs fn, for people: a running record has it, and one whose
	// execution was interrupted.
	FieldOwner Field = iota + 1
	// FieldOrigin is the span of the call that runs fn: trace id (16 bytes), span id (8 bytes), flags (1 byte).
	FieldOrigin
	// FieldShape is reserved for a fingerprint of the type that the payload encodes.
	FieldShape
	// FieldSeal is reserved for what protects a payload from being read or replaced.
	FieldSeal
)

const (
	// maxExtensionsSize is the size of all extensions of a record at most, so that everything but the
	// payload is at its beginning.
	maxExtensionsSize = 512

	MaxOwnerSize = 64
	originSize   = 25

	// knownFieldsSize is the size of the fields that this code writes.
	knownFieldsSize = fieldHeadSize + MaxOwnerSize + fieldHeadSize + originSize
	fieldHeadSize   = 2
)

// known reports whether this code writes the field itself, and so replaces it in a record that it takes
// over.
func (f Field) known() bool { return f == FieldOwner || f == FieldOrigin }

// Get returns the value of a field, or nil.
func (e Extensions) Get(f Field) []byte {
	start, end := e.find(f)
	if start == end {
		return nil
	}
	return e[start+fieldHeadSize : end : end]
}

// Without returns e without a field. The field with the lowest number goes without a copy.
func (e Extensions) Without(f Field) Extensions {
	start, end := e.find(f)
	if start == end {
		return e
	}
	if start == 0 {
		return e[end:]
	}
	return slices.Concat(e[:start], e[end:])
}

// With returns a copy of e with a field of 1 to 255 bytes, in place of any other value of it.
func (e Extensions) With(f Field, value []byte) Extensions {
	start, end := e.find(f)
	return slices.Concat(e[:start], Extensions{byte(f), byte(len(value))}, Extensions(value), e[end:])
}

// Inherit returns e with the fields of a record that is rewritten which this code does not know. If they do
// not fit together, they go before those of e, which inform people and nothing else.
func (e Extensions) Inherit(from Extensions) Extensions {
	kept := from.unknown()
	if len(kept) == 0 {
		return e
	}
	all := kept
	for f, value := range e.fields {
		all = all.With(f, value)
	}
	if len(all) > maxExtensionsSize {
		return kept
	}
	return all
}

func (e Extensions) unknown() (kept Extensions) {
	for f, value := range e.fields {
		if !f.known() {
			kept = append(append(kept, byte(f), byte(len(value))), value...)
		}
	}
	return kept
}

// find returns where a field is or, with start equal to end, where it belongs.
func (e Extensions) find(f Field) (start, end int) {
	for start < len(e) && Field(e[start]) <= f {
		end = start + fieldHeadSize + int(e[start+1])
		if Field(e[start]) == f {
			return start, end
		}
		start = end
	}
	return start, start
}

// WithOrigin returns a copy of e with FieldOrigin.
func (e Extensions) WithOrigin(traceID [16]byte, spanID [8]byte, flags byte) Extensions {
	value := make([]byte, 0, originSize)
	return e.With(FieldOrigin, append(append(append(value, traceID[:]...), spanID[:]...), flags))
}

// Origin returns FieldOrigin, or zeros if there is none of the length that this code knows.
func (e Extensions) Origin() (traceID [16]byte, spanID [8]byte, flags byte) {
	if value := e.Get(FieldOrigin); len(value) == originSize {
		return [16]byte(value), [8]byte(value[16:]), value[originSize-1]
	}
	return traceID, spanID, 0
}

// fields yields each field and its value.
func (e Extensions) fields(yield func(Field, []byte) bool) {
	for len(e) > 0 {
		size := fieldHeadSize + int(e[1])
		if !yield(Field(e[0]), e[fieldHeadSize:size:size]) {
			return
		}
		e = e[size:]
	}
}

// wellFormed reports whether each field is whole and not empty, and the numbers ascend from 1.
func (e Extensions) wellFormed() bool {
	last := byte(0)
	for len(e) > 0 {
		if len(e) < fieldHeadSize || e[0] <= last || e[1] == 0 || len(e) < fieldHeadSize+int(e[1]) {
			return false
		}
		last, e = e[0], e[fieldHeadSize+int(e[1]):]
	}
	return true
}
