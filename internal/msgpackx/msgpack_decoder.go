package msgpackx

import (
	"bytes"
	"errors"
	"sync"

	"github.com/vmihailenco/msgpack/v5"
)

// A decoder is what many decodings of msgpack can share, one after another.
type decoder struct {
	in  bytes.Reader
	dec msgpack.Decoder
}

// decoders are at rest.
var Decoders decoderPool

type decoderPool struct{ sync.Pool }

func (p *decoderPool) Decode(data []byte, v any) error {
	d, ok := p.Get().(*decoder)
	if !ok {
		d = new(decoder)
	}
	err := d.decode(data, v)
	p.Put(d) // not after a panic, which may have left anything in it
	return err
}

func (d *decoder) decode(data []byte, v any) error {
	d.in.Reset(data)
	defer d.in.Reset(nil)
	d.dec.Reset(&d.in)
	d.dec.UseLooseInterfaceDecoding(true)
	if err := d.dec.Decode(v); err != nil {
		return err
	}
	if d.in.Len() > 0 {
		return errTrailingData
	}
	return nil
}

var errTrailingData = errors.New("data after the value")
