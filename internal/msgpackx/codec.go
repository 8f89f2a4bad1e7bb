// Package msgpackx encodes values as github.com/vmihailenco/msgpack/v5 does, and refuses what that
// would change in silence: values that refer to themselves, numbers that do not fit, records of
// another type. It owns the encoders and decoders. It never runs a function of the user but the
// methods by which a type encodes, decodes and compares itself.
package msgpackx

import (
	"bytes"
	"errors"
	"reflect"
	"sync"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/idempotent-go/idempotent/internal/equal"
	"github.com/idempotent-go/idempotent/internal/safetext"
	"github.com/idempotent-go/idempotent/internal/shape"
)

// A Codec encodes and decodes values of one type.
type Codec struct{ shape *shape.Shape }

// For returns the codec of a type.
func For(typ reflect.Type) *Codec { return &Codec{shape.Of(typ, shape.Msgpack)} }

// CheckType returns why values of the type do not come back as they were, or nil.
func (c *Codec) CheckType() error { return c.shape.Problem }

// An encoder is reused, with its buffer.
type encoder struct {
	out bytes.Buffer
	enc *msgpack.Encoder
}

// maxKept is the size of the largest buffer that is kept for later values.
const maxKept = 64 << 10

var encoders sync.Pool

// Encode encodes what ptr points to.
func (c *Codec) Encode(ptr any) ([]byte, error) {
	if c.shape.MayCycle && cycles(c.shape.Root, reflect.ValueOf(ptr).Elem(), make(map[place]bool)) {
		return nil, ErrCycle
	}
	e, ok := encoders.Get().(*encoder)
	if !ok {
		e = &encoder{enc: msgpack.NewEncoder(nil)}
	}
	e.out.Reset()
	e.enc.Reset(&e.out)
	e.enc.SetCustomStructTag("json")
	if err := e.enc.Encode(ptr); err != nil {
		return nil, err
	}
	data := bytes.Clone(e.out.Bytes())
	if e.out.Cap() <= maxKept {
		encoders.Put(e) // not after a panic, which may have left anything in it
	}
	return data, nil
}

// A decoder is reused.
type decoder struct {
	in  bytes.Reader
	dec msgpack.Decoder
}

var decoders sync.Pool

var errTrailingData = errors.New("data after the value")

// Decode decodes data into what ptr points to.
func (c *Codec) Decode(data []byte, ptr any) error {
	d, ok := decoders.Get().(*decoder)
	if !ok {
		d = new(decoder)
	}
	if err := d.decode(data, ptr); err != nil {
		return err
	}
	decoders.Put(d)
	if err := check(data, c.shape.Root); err != nil {
		return err
	}
	if c.shape.Root.HasTime {
		toUTC(c.shape.Root, reflect.ValueOf(ptr).Elem())
	}
	return nil
}

func (d *decoder) decode(data []byte, ptr any) error {
	d.in.Reset(data)
	defer d.in.Reset(nil)
	d.dec.Reset(&d.in)
	d.dec.UseLooseInterfaceDecoding(true)
	d.dec.SetCustomStructTag("json")
	if err := d.dec.Decode(ptr); err != nil {
		return err
	}
	if d.in.Len() > 0 {
		return errTrailingData
	}
	return nil
}

// CheckValue returns an error if data, which is the encoding of what ptr points to, decodes to
// another value. Where the type alone says that it does not, nothing is decoded.
func (c *Codec) CheckValue(ptr any, data []byte) error {
	if !c.shape.Doubtful {
		return nil
	}
	again := reflect.New(c.shape.Root.Type)
	if err := c.Decode(data, again.Interface()); err != nil {
		return safetext.Wrap("it could not be decoded again", err)
	}
	options := equal.Options{
		Skip:       shape.Msgpack.LeavesOut,
		EmptyIsNil: true,
	}
	if difference := options.Difference(ptr, again.Interface()); difference != "" {
		return safetext.Errorf("it would not come back as it was: %s", difference)
	}
	return nil
}
