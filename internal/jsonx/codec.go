// Package jsonx encodes values as encoding/json does, and refuses what that would change in silence:
// text that is no UTF-8, numbers that do not fit, records of another type. It never runs a function
// of the user but the methods by which a type encodes, decodes and compares itself.
package jsonx

import (
	"bytes"
	"encoding/json"
	"reflect"
	"unicode/utf8"

	"github.com/idempotent-go/idempotent/internal/equal"
	"github.com/idempotent-go/idempotent/internal/safetext"
	"github.com/idempotent-go/idempotent/internal/shape"
)

// A Codec encodes and decodes values of one type.
type Codec struct{ shape *shape.Shape }

// For returns the codec of a type.
func For(typ reflect.Type) *Codec { return &Codec{shape.Of(typ, shape.JSON)} }

// CheckType returns why values of the type do not come back as they were, or nil.
func (c *Codec) CheckType() error { return c.shape.Problem }

// ErrNotUTF8: JSON has no text that is not UTF-8, and encoding/json writes U+FFFD for what is not.
var ErrNotUTF8 = safetext.Errorf("a text in it is not UTF-8, which JSON cannot hold")

// Encode encodes what ptr points to.
func (c *Codec) Encode(ptr any) ([]byte, error) {
	data, err := json.Marshal(ptr)
	if err != nil {
		return nil, err
	}
	// U+FFFD itself is written as it is; the escape stands for bytes that are not UTF-8, unless a
	// type that encodes itself wrote it.
	if (bytes.Contains(data, []byte(`\ufffd`)) || !utf8.Valid(data)) && c.compare(ptr, data) != nil {
		return nil, ErrNotUTF8
	}
	return data, nil
}

// Decode decodes data into what ptr points to.
func (c *Codec) Decode(data []byte, ptr any) error {
	if err := json.Unmarshal(data, ptr); err != nil {
		return err
	}
	return check(data, c.shape.Root)
}

// CheckValue returns an error if data, which is the encoding of what ptr points to, decodes to
// another value. Where the type alone says that it does not, nothing is decoded.
func (c *Codec) CheckValue(ptr any, data []byte) error {
	if !c.shape.Doubtful && !c.shape.MayCycle { // encoding/json writes deeper values than it reads
		return nil
	}
	return c.compare(ptr, data)
}

func (c *Codec) compare(ptr any, data []byte) error {
	again := reflect.New(c.shape.Root.Type)
	if err := c.Decode(data, again.Interface()); err != nil {
		return safetext.Wrap("it could not be decoded again", err)
	}
	options := equal.Options{
		Skip:       shape.JSON.LeavesOut,
		EmptyIsNil: true,
	}
	if difference := options.Difference(ptr, again.Interface()); difference != "" {
		return safetext.Errorf("it would not come back as it was: %s", difference)
	}
	return nil
}
