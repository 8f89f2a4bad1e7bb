package shape

import "github.com/idempotent-go/idempotent/internal/safetext"

// A Reading compares the fields of a record with those of a type. A type that only gained fields, or
// only lost some, reads the records of its predecessor; with both in one value, a field may have
// been renamed or moved, and its value would be lost.
type Reading struct {
	unknown bool   // a field of the record is not one of the type
	missing string // a field of the type is not in the record
}

// An Object is what was read of one struct so far.
type Object struct {
	node    *Node
	seen    [2]uint64
	more    []uint64 // of fields beyond those
	unknown int
}

// Object begins to read a struct.
func (n *Node) Object() Object {
	o := Object{node: n}
	if len(n.Fields) > 128 {
		o.more = make([]uint64, len(n.Fields)/64+1)
	}
	return o
}

// Saw counts a field, and reports whether it was there for the first time.
func (o *Object) Saw(field int) (first bool) {
	words := o.seen[:]
	if o.more != nil {
		words = o.more
	}
	bit := uint64(1) << (field % 64)
	first = words[field/64]&bit == 0
	words[field/64] |= bit
	return first
}

func (o *Object) has(field int) bool {
	words := o.seen[:]
	if o.more != nil {
		words = o.more
	}
	return words[field/64]&(1<<(field%64)) != 0
}

// SawUnknown counts a field that the type lacks.
func (o *Object) SawUnknown() { o.unknown++ }

// Done ends the reading of a struct. Its error names no field of the record: where the record holds
// a map, its keys may be secret.
func (r *Reading) Done(o *Object) error {
	r.unknown = r.unknown || o.unknown > 0
	for i, f := range o.node.Fields {
		if o.has(i) || f.Omitted && o.unknown == 0 {
			continue
		}
		r.missing = f.Name
		break
	}
	if r.unknown && r.missing != "" {
		return safetext.Errorf("it was written as another type: it has fields that %v lacks, and lacks its field %q; give another type another namespace", o.node.Type, r.missing)
	}
	return nil
}
