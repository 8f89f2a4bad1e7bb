package idemhttp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
)

// A recorded response is, in this order:
//
//	version   1 byte, codecVersion
//	flags     1 byte, flagWithheld: nothing follows the expiry
//	status    uvarint
//	expiry    uvarint, Unix time in seconds, 0 for a response that is not recorded
//	header    fields
//	deleted   uvarint count, then texts
//	trailer   fields
//	body      the rest
//
// fields are a uvarint count and, for each in alphabetical order, its name, a uvarint count and
// its values. A text is a uvarint length and the bytes.
const (
	codecVersion = 1
	flagWithheld = 1
	flagRedacted = 2
)

type codec struct{}

func (codec) Encode(r response) ([]byte, error) { return r.encode(), nil }

func (codec) Decode(data []byte) (response, error) { return decodeResponse(data) }

func (r *response) encode() []byte {
	if r.stored != nil {
		r = r.stored
	}
	b := make([]byte, 0, r.size()+len(r.header)*4+64)
	flags := byte(0)
	if r.withheld {
		flags |= flagWithheld
	}
	if r.redacted {
		flags |= flagRedacted
	}
	b = binary.AppendUvarint(append(b, codecVersion, flags), uint64(r.status))
	b = binary.AppendUvarint(b, uint64(r.expires))
	if r.withheld {
		return b
	}
	b = appendFields(b, r.header)
	b = appendTexts(b, r.deleted)
	b = appendFields(b, r.trailer)
	return append(b, r.body...)
}

func appendFields(b []byte, fields http.Header) []byte {
	b = binary.AppendUvarint(b, uint64(len(fields)))
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		b = appendText(b, name)
		b = appendTexts(b, fields[name])
	}
	return b
}

func appendTexts(b []byte, texts []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(texts)))
	for _, text := range texts {
		b = appendText(b, text)
	}
	return b
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

var errShort = errors.New("the response ends too early")

func decodeResponse(data []byte) (response, error) {
	r := response{decoded: true}
	if len(data) < 2 {
		return response{}, errShort
	}
	if data[0] != codecVersion {
		return response{}, fmt.Errorf("the response has version %d; this library reads %d", data[0], codecVersion)
	}
	if data[1]&^(flagWithheld|flagRedacted) != 0 {
		return response{}, fmt.Errorf("the response has unknown flags %#x", data[1])
	}
	in := decoder{b: data[2:]}
	r.withheld, r.redacted = data[1]&flagWithheld != 0, data[1]&flagRedacted != 0
	r.status = in.int()
	r.expires = in.time()
	if !r.withheld {
		r.header = in.fields()
		r.deleted = in.texts()
		r.trailer = in.fields()
		r.body = slices.Clone(in.b) // data is read by others at the same time
	}
	switch {
	case in.short:
		return response{}, errShort
	case r.status < 200 || r.status > 999:
		return response{}, fmt.Errorf("the response has status %d", r.status)
	case r.withheld && len(in.b) > 0:
		return response{}, errors.New("there is data after the response")
	}
	return r, nil
}

// A decoder takes values off the front of b. Once something is not there, all are zero.
type decoder struct {
	b     []byte
	short bool
}

// time is a time that http.TimeFormat can write, in seconds.
func (d *decoder) time() int64 {
	const end = 253402300800 // the year 10000
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v >= end {
		d.b, d.short = nil, true
		return 0
	}
	d.b = d.b[n:]
	return int64(v)
}

// int is at most the number of bytes that can follow, or a status, so that a damaged count does not
// allocate much.
func (d *decoder) int() int {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > uint64(max(len(d.b), 999)) {
		d.b, d.short = nil, true
		return 0
	}
	d.b = d.b[n:]
	return int(v)
}

func (d *decoder) text() string {
	n := d.int()
	if n > len(d.b) {
		d.b, d.short = nil, true
		return ""
	}
	text := string(d.b[:n])
	d.b = d.b[n:]
	return text
}

func (d *decoder) texts() []string {
	n := d.int()
	if n == 0 {
		return nil
	}
	texts := make([]string, 0, min(n, len(d.b)))
	for range n {
		if d.short {
			return nil
		}
		texts = append(texts, d.text())
	}
	return texts
}

func (d *decoder) fields() http.Header {
	n := d.int()
	if n == 0 {
		return nil
	}
	fields := make(http.Header, min(n, len(d.b)))
	for range n {
		if d.short {
			return nil
		}
		name := d.text()
		fields[name] = d.texts()
	}
	return fields
}
