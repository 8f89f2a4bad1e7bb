package idempotent

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync/atomic"
	"time"
)

// A record is what one Redis string holds. Its bytes are, in this order:
//
//	version      1 byte, recordVersion
//	kind         1 byte, 'R' running or 'D' done
//	token        16 bytes, who wrote it; scripts compare these first 18 bytes
//	detail       1 byte: running, 1 for Refuse; done, the outcome
//	attempt      uvarint, 1 for the first execution
//	at           uvarint, Unix ms of the writer's clock, for people only
//	fingerprint  1 byte length, then the bytes
//	running:     lease and retention, uvarint ms each
//	done:        codec, 1 byte, then the payload
//	checksum     4 bytes, CRC-32C of all before, little endian
type record struct {
	kind        byte
	token       token
	attempt     uint32
	at          time.Time
	fingerprint []byte

	// running
	refuse    bool
	lease     time.Duration
	retention time.Duration

	// done
	outcome outcome
	codec   codecID
	payload []byte
	decoded atomic.Value // what payload stands for, a T, once somebody has shared that
}

const (
	recordVersion = 1
	kindRunning   = 'R'
	kindDone      = 'D'

	headSize           = 18 // version, kind, token
	maxFingerprintSize = 32
)

type outcome byte

const (
	outcomeValue outcome = iota + 1
	outcomeError
	outcomePanic
	outcomeInterrupted
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maxRunningSize is how long a running record can become, but for its fingerprint.
const maxRunningSize = headSize + 3 + 3*binary.MaxVarintLen64 + binary.MaxVarintLen32 + crc32.Size

func (r *record) encode() []byte {
	return r.appendTo(make([]byte, 0, maxRunningSize+len(r.fingerprint)+len(r.payload)))
}

// appendTo encodes the record into b, which is empty.
func (r *record) appendTo(b []byte) []byte {
	b = append(b, recordVersion, r.kind)
	b = append(b, r.token[:]...)
	b = append(b, r.detail())
	b = binary.AppendUvarint(b, uint64(r.attempt))
	b = binary.AppendUvarint(b, uint64(max(r.at.UnixMilli(), 0)))
	b = append(b, byte(len(r.fingerprint)))
	b = append(b, r.fingerprint...)
	if r.kind == kindRunning {
		b = binary.AppendUvarint(b, uint64(r.lease.Milliseconds()))
		b = binary.AppendUvarint(b, uint64(r.retention.Milliseconds()))
	} else {
		b = append(b, byte(r.codec))
		b = append(b, r.payload...)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (r *record) detail() byte {
	if r.kind == kindDone {
		return byte(r.outcome)
	}
	if r.refuse {
		return 1
	}
	return 0
}

// head is how the encoded record begins, which tells it from every other one.
func (r *record) head() []byte {
	return append([]byte{recordVersion, r.kind}, r.token[:]...)
}

// payloadIn is the payload of an encoded record, size bytes long.
func payloadIn(raw []byte, size int) []byte {
	end := len(raw) - crc32.Size
	return raw[end-size : end : end]
}

func decodeRecord(b []byte) (*record, error) {
	rec := new(record)
	if err := rec.decode(b); err != nil {
		return nil, err
	}
	return rec, nil
}

// decode reads what encode wrote and refuses everything else with ErrCorruptRecord. The record
// keeps b for its payload and fingerprint.
func (r *record) decode(b []byte) error {
	if len(b) == 0 {
		return corrupt("is empty")
	}
	if b[0] != recordVersion {
		return corrupt("has version %d, this library reads %d", b[0], recordVersion)
	}
	if len(b) < headSize+crc32.Size {
		return corrupt("is %d bytes long, too short", len(b))
	}
	body, sum := b[:len(b)-crc32.Size], binary.LittleEndian.Uint32(b[len(b)-crc32.Size:])
	if crc32.Checksum(body, castagnoli) != sum {
		return corrupt("has a wrong checksum")
	}
	*r = record{kind: body[1], token: token(body[2:headSize])}
	in := reader{b: body[headSize:]}
	detail := in.byte()
	attempt := in.uvarint()
	at := in.uvarint()
	r.fingerprint = in.take(int(in.byte()))
	switch r.kind {
	case kindRunning:
		r.refuse = detail == 1
		r.lease = in.millis()
		r.retention = in.millis()
		in.bad = in.bad || len(in.b) > 0 || detail > 1
	case kindDone:
		r.outcome = outcome(detail)
		r.codec = codecID(in.byte())
		r.payload = in.b
		in.bad = in.bad || r.outcome < outcomeValue || r.outcome > outcomeInterrupted
	default:
		in.bad = true
	}
	if in.bad || attempt == 0 || attempt > maxAttempt || at > maxMillis || len(r.fingerprint) > maxFingerprintSize {
		return corrupt("has a field out of range")
	}
	r.attempt = uint32(attempt)
	r.at = time.UnixMilli(int64(at))
	return nil
}

const (
	maxAttempt = 1<<32 - 1
	maxMillis  = uint64(1<<63-1) / uint64(time.Millisecond)
)

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: it %s", ErrCorruptRecord, fmt.Sprintf(format, args...))
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

func (r *reader) millis() time.Duration {
	v := r.uvarint()
	if v > maxMillis {
		r.bad = true
		return 0
	}
	return time.Duration(v) * time.Millisecond
}
