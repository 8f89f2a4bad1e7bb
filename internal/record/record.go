// Package record owns the bytes under one name in Redis: how a record is written, and that anything else
// is refused. It never talks to Redis and never looks into a payload.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"
	"time"
)

// A Record is what one Redis string holds. Its bytes are, in this order:
//
//	version      1 byte, Version
//	kind         1 byte, 'R' running or 'D' done
//	token        16 bytes, who wrote it; scripts compare these first 18 bytes
//	detail       1 byte: running, 1 for Refuse; done, the outcome
//	attempt      uvarint, 1 for the first execution
//	at           uvarint, Unix ms of the writer's clock, for people only
//	fingerprint  1 byte length, then the bytes
//	extensions   uvarint length, then the fields; see [Extensions]
//	running:     lease and retention, uvarint ms each
//	done:        codec, 1 byte, then the payload
//	checksum     4 bytes, CRC-32C of all before, little endian
type Record struct {
	Kind        byte
	Token       Token
	Attempt     uint32
	At          time.Time
	Fingerprint []byte
	Extensions  Extensions // nil without any

	// running
	Refuse    bool
	Lease     time.Duration
	Retention time.Duration

	// done
	Outcome Outcome
	Codec   CodecID
	Payload []byte
	Decoded atomic.Value // what payload stands for, a T, once a caller has shared that
}

const (
	// Version is the first byte of a record. No message that is not a record may begin with it.
	Version = 1

	HeadSize           = 18 // version, kind, token
	MaxFingerprintSize = 32
)

// A Kind is the second byte of a record.
type Kind = byte

const (
	KindRunning Kind = 'R' // an owner runs fn, or ran it and died
	KindDone    Kind = 'D' // fn has an outcome
)

// An Outcome says what a finished record holds.
type Outcome byte

const (
	OutcomeValue Outcome = iota + 1
	OutcomeError
	OutcomePanic
	OutcomeInterrupted
	// OutcomeValueNotKept: fn succeeded, and its value could not be stored.
	OutcomeValueNotKept
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// MaxRunningSize is the size of a running record at most, but for its fingerprint and for extensions that this
// code does not know.
const MaxRunningSize = HeadSize + 5 + knownFieldsSize + 3*binary.MaxVarintLen64 + binary.MaxVarintLen32 + crc32.Size

// Encode returns the bytes of r.
func (r *Record) Encode() []byte {
	return r.AppendTo(make([]byte, 0, MaxRunningSize+len(r.Fingerprint)+len(r.Extensions)+len(r.Payload)))
}

// AppendTo encodes the record into b, which is empty.
func (r *Record) AppendTo(b []byte) []byte {
	b = append(b, Version, r.Kind)
	b = append(b, r.Token[:]...)
	b = append(b, r.detail())
	b = binary.AppendUvarint(b, uint64(r.Attempt))
	b = binary.AppendUvarint(b, uint64(max(r.At.UnixMilli(), 0)))
	b = append(b, byte(len(r.Fingerprint)))
	b = append(b, r.Fingerprint...)
	b = binary.AppendUvarint(b, uint64(len(r.Extensions)))
	b = append(b, r.Extensions...)
	if r.Kind == KindRunning {
		b = binary.AppendUvarint(b, uint64(r.Lease.Milliseconds()))
		b = binary.AppendUvarint(b, uint64(r.Retention.Milliseconds()))
	} else {
		b = append(b, byte(r.Codec))
		b = append(b, r.Payload...)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (r *Record) detail() byte {
	if r.Kind == KindDone {
		return byte(r.Outcome)
	}
	if r.Refuse {
		return 1
	}
	return 0
}

// Head returns the first HeadSize bytes of the encoded record. They hold its token, so they identify it.
func (r *Record) Head() []byte {
	return append([]byte{Version, r.Kind}, r.Token[:]...)
}

// PayloadIn returns the payload of an encoded record. It is size bytes long and shares raw's memory.
func PayloadIn(raw []byte, size int) []byte {
	end := len(raw) - crc32.Size
	return raw[end-size : end : end]
}

// Decode returns the record that b encodes. Anything but the output of Encode is refused with ErrCorrupt. The
// record shares b's memory.
func Decode(b []byte) (*Record, error) {
	rec := new(Record)
	if err := rec.decode(b); err != nil {
		return nil, err
	}
	return rec, nil
}

// decode reads what encode wrote and refuses everything else with ErrCorrupt. The record
// keeps b for its payload and fingerprint.
func (r *Record) decode(b []byte) error {
	if len(b) == 0 {
		return Corrupt("is empty")
	}
	if b[0] != Version {
		return Corrupt("has version %d, this library reads %d", b[0], Version)
	}
	if len(b) < HeadSize+crc32.Size {
		return Corrupt("is %d bytes long, too short", len(b))
	}
	body, sum := b[:len(b)-crc32.Size], binary.LittleEndian.Uint32(b[len(b)-crc32.Size:])
	if crc32.Checksum(body, castagnoli) != sum {
		return Corrupt("has a wrong checksum")
	}
	return r.fields(body)
}

// MaxMetadataSize is the size of all of a record but its payload, at most.
const MaxMetadataSize = MaxRunningSize + MaxFingerprintSize + maxExtensionsSize

// DecodeMetadata reads a record of size bytes that begins with b: all of it, or MaxMetadataSize bytes or more. Of a
// record that is longer, it does not read the payload, and cannot check the sum.
func DecodeMetadata(b []byte, size int) (*Record, error) {
	if len(b) >= size {
		return Decode(b)
	}
	if len(b) < HeadSize || b[0] != Version || b[1] != KindDone {
		return nil, Corrupt("does not begin as a record of this version does")
	}
	rec := new(Record)
	if err := rec.fields(b); err != nil {
		return nil, err
	}
	rec.Payload = nil
	return rec, nil
}

// fields reads a record without its checksum.
func (r *Record) fields(body []byte) error {
	*r = Record{Kind: body[1], Token: Token(body[2:HeadSize])}
	in := reader{b: body[HeadSize:]}
	detail := in.byte()
	attempt := in.uvarint()
	at := in.uvarint()
	r.Fingerprint = in.take(int(in.byte()))
	r.Extensions = in.extensions()
	switch r.Kind {
	case KindRunning:
		r.Refuse = detail == 1
		r.Lease = in.millis()
		r.Retention = in.millis()
		in.bad = in.bad || len(in.b) > 0 || detail > 1
	case KindDone:
		r.Outcome = Outcome(detail)
		r.Codec = CodecID(in.byte())
		r.Payload = in.b
		in.bad = in.bad || r.Outcome < OutcomeValue || r.Outcome > OutcomeValueNotKept
	default:
		in.bad = true
	}
	if in.bad || attempt == 0 || attempt > maxAttempt || at > maxMillis || len(r.Fingerprint) > MaxFingerprintSize {
		return Corrupt("has a field out of range")
	}
	r.Attempt = uint32(attempt)
	r.At = time.UnixMilli(int64(at))
	return nil
}

const (
	maxAttempt = 1<<32 - 1
	maxMillis  = uint64(1<<63-1) / uint64(time.Millisecond)
)

// ErrCorrupt is the root package's ErrCorruptRecord.
var ErrCorrupt = errors.New("idempotent: record cannot be read")

// Corrupt returns an error that wraps ErrCorrupt. The format continues the word "it" and holds no payload.
func Corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: it %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// A reader takes fields off the front of b. After the first that is not there, bad is set and
// every field is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// uvarint accepts the shortest form alone, so that one record has one encoding.
func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || (n > 1 && r.b[n-1] == 0) {
		r.bad = true
		return 0
	}
	r.take(n)
	return v
}

func (r *reader) extensions() Extensions {
	size := r.uvarint()
	if size == 0 {
		return nil
	}
	if size > maxExtensionsSize {
		r.bad = true
		return nil
	}
	e := Extensions(r.take(int(size)))
	r.bad = r.bad || !e.wellFormed()
	return e
}

func (r *reader) millis() time.Duration {
	v := r.uvarint()
	if v > maxMillis {
		r.bad = true
		return 0
	}
	return time.Duration(v) * time.Millisecond
}
