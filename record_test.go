package idempotent

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var goldenToken = token{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}

func runningRecord() *record {
	return &record{
		kind:        kindRunning,
		token:       goldenToken,
		attempt:     3,
		at:          time.UnixMilli(1793218500123),
		fingerprint: []byte{1, 2, 3, 4, 5},
		refuse:      true,
		lease:       10 * time.Second,
		retention:   24 * time.Hour,
	}
}

func doneRecord() *record {
	return &record{
		kind:        kindDone,
		token:       goldenToken,
		attempt:     300,
		at:          time.UnixMilli(1793218500123),
		fingerprint: []byte{},
		outcome:     outcomeValue,
		codec:       codecMsgpack,
		payload:     []byte("\xa7charged"),
	}
}

// golden holds the records as they are stored. Records outlive the program that wrote them: a
// change of these bytes needs a new recordVersion.
var golden = map[string]struct {
	record *record
	hex    []string
}{
	"running": {runningRecord(), []string{
		"01", "52", "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf", // version, kind, token
		"01", "03", "9bac9ba19834", // Refuse, attempt, at
		"05", "0102030405", // fingerprint
		"904e", "80b89929", // lease, retention
		"7dd8d40e", // checksum
	}},
	"done": {doneRecord(), []string{
		"01", "44", "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf", // version, kind, token
		"01", "ac02", "9bac9ba19834", // value, attempt, at
		"00",                     // no fingerprint
		"01", "a763686172676564", // codec, payload
		"657d87fa", // checksum
	}},
}

func TestRecordBytes(t *testing.T) {
	for name, test := range golden {
		t.Run(name, func(t *testing.T) {
			want := strings.Join(test.hex, "")
			require.Equal(t, want, hex.EncodeToString(test.record.encode()))
			raw, err := hex.DecodeString(want)
			require.NoError(t, err)
			got, err := decodeRecord(raw)
			require.NoError(t, err)
			require.Equal(t, test.record, got)
		})
	}
}

// The numbers inside records are stored, so they must not move.
func TestRecordNumbers(t *testing.T) {
	assert.EqualValues(t, 1, recordVersion)
	assert.Equal(t, []outcome{1, 2, 3, 4}, []outcome{outcomeValue, outcomeError, outcomePanic, outcomeInterrupted})
	assert.Equal(t, []codecID{0, 1, 2, 3}, []codecID{codecCustom, codecMsgpack, codecJSON, codecRaw})
	assert.Equal(t, codecMsgpack, codecOf(Msgpack[int]()))
	assert.Equal(t, codecJSON, codecOf(JSON[int]()))
	assert.Equal(t, codecRaw, codecOf(Raw[string]()))
	assert.Equal(t, codecCustom, codecOf(struct{ Codec[int] }{JSON[int]()}))
}

func TestRecordRoundTrip(t *testing.T) {
	change := func(base func() *record, change func(*record)) *record {
		r := base()
		change(r)
		return r
	}
	tests := map[string]*record{
		"running":                    runningRecord(),
		"running, rerun":             change(runningRecord, func(r *record) { r.refuse = false }),
		"running, first attempt":     change(runningRecord, func(r *record) { r.attempt = 1 }),
		"running, last attempt":      change(runningRecord, func(r *record) { r.attempt = math.MaxUint32 }),
		"running, shortest times":    change(runningRecord, func(r *record) { r.lease, r.retention = 0, time.Millisecond }),
		"running, longest fingerp.":  change(runningRecord, func(r *record) { r.fingerprint = bytes.Repeat([]byte{0xff}, maxFingerprintSize) }),
		"running, long ago":          change(runningRecord, func(r *record) { r.at = time.UnixMilli(0) }),
		"done, value":                doneRecord(),
		"done, error":                change(doneRecord, func(r *record) { r.outcome = outcomeError }),
		"done, panic":                change(doneRecord, func(r *record) { r.outcome = outcomePanic }),
		"done, interrupted":          change(doneRecord, func(r *record) { r.outcome, r.payload = outcomeInterrupted, []byte{} }),
		"done, empty payload":        change(doneRecord, func(r *record) { r.payload = []byte{} }),
		"done, large payload":        change(doneRecord, func(r *record) { r.payload = bytes.Repeat([]byte{0, 0xff}, 1<<19) }),
		"done, payload like records": change(doneRecord, func(r *record) { r.payload = runningRecord().encode() }),
		"done, unknown codec":        change(doneRecord, func(r *record) { r.codec = 200 }),
		"done, token of zeros":       change(doneRecord, func(r *record) { r.token = token{} }),
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := decodeRecord(want.encode())
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestRecordHeadIsWhatScriptsCompare(t *testing.T) {
	for _, r := range []*record{runningRecord(), doneRecord()} {
		head := r.encode()[:headSize]
		assert.EqualValues(t, recordVersion, head[0])
		assert.Equal(t, r.kind, head[1])
		assert.Equal(t, goldenToken[:], head[2:18])
	}
}

func TestRecordOverhead(t *testing.T) {
	payload := []byte("payload")
	r := doneRecord()
	r.attempt, r.fingerprint, r.payload = 1, bytes.Repeat([]byte{7}, maxFingerprintSize), payload
	assert.LessOrEqual(t, len(r.encode())-len(payload), 64)
	r.at = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	assert.LessOrEqual(t, len(r.encode())-len(payload), 64)
	r.attempt = 100
	assert.LessOrEqual(t, len(r.encode())-len(payload), 64)
}

func TestPayloadInIsTheRecordsOwn(t *testing.T) {
	r := doneRecord()
	raw := r.encode()
	payload := payloadIn(raw, len(r.payload))
	require.Equal(t, r.payload, payload)
	assert.Equal(t, len(payload), cap(payload), "appending to it must not write into the record")
	payload[0] ^= 0xff
	assert.NotEqual(t, payload, r.payload)
}

func TestRecordRefusesEveryBitFlip(t *testing.T) {
	for name, test := range golden {
		t.Run(name, func(t *testing.T) {
			raw := test.record.encode()
			for bit := range 8 * len(raw) {
				flipped := bytes.Clone(raw)
				flipped[bit/8] ^= 1 << (bit % 8)
				_, err := decodeRecord(flipped)
				require.ErrorIs(t, err, ErrCorruptRecord, "bit %d of byte %d", bit%8, bit/8)
			}
		})
	}
}

func TestRecordRefusesEveryTruncation(t *testing.T) {
	for name, test := range golden {
		t.Run(name, func(t *testing.T) {
			raw := test.record.encode()
			for n := range raw {
				_, err := decodeRecord(raw[:n])
				require.ErrorIs(t, err, ErrCorruptRecord, "the first %d of %d bytes", n, len(raw))
				_, err = decodeRecord(raw[len(raw)-n:])
				require.ErrorIs(t, err, ErrCorruptRecord, "the last %d of %d bytes", n, len(raw))
			}
		})
	}
}

// sum puts the right checksum behind what is wrong otherwise.
func sum(parts ...string) []byte {
	body, err := hex.DecodeString(strings.Join(parts, ""))
	if err != nil {
		panic(err)
	}
	return binary.LittleEndian.AppendUint32(body, crc32.Checksum(body, castagnoli))
}

func TestRecordRefusesWhatEncodeDoesNotWrite(t *testing.T) {
	const (
		token = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"
		at    = "9bac9ba19834"
		times = "904e80b89929"
	)
	tests := map[string][]byte{
		"nothing":                        nil,
		"no more than a checksum":        sum(),
		"version 0":                      sum("00", "52", token, "0001", at, "00", times),
		"version 2":                      sum("02", "52", token, "0001", at, "00", times),
		"version 2, done":                sum("02", "44", token, "0101", at, "00", "01", "c0"),
		"unknown kind":                   sum("01", "53", token, "0001", at, "00", times),
		"kind in lower case":             sum("01", "72", token, "0001", at, "00", times),
		"head alone":                     sum("01", "52", token),
		"running, unknown detail":        sum("01", "52", token, "0201", at, "00", times),
		"running, attempt 0":             sum("01", "52", token, "0000", at, "00", times),
		"running, attempt too long":      sum("01", "52", token, "00", "8100", at, "00", times),
		"running, attempt over 32 bits":  sum("01", "52", token, "00", "8080808010", at, "00", times),
		"running, attempt over 64 bits":  sum("01", "52", token, "00", "ffffffffffffffffff7f", at, "00", times),
		"running, endless attempt":       sum("01", "52", token, "00", "ffffffffffffffffffffff"),
		"running, time out of range":     sum("01", "52", token, "0001", "ffffffffffffffffff01", "00", times),
		"running, fingerprint too long":  sum("01", "52", token, "0001", at, "21", strings.Repeat("07", 33), times),
		"running, fingerprint cut":       sum("01", "52", token, "0001", at, "20", "0707", times),
		"running, no times":              sum("01", "52", token, "0001", at, "00"),
		"running, one time":              sum("01", "52", token, "0001", at, "00", "904e"),
		"running, lease out of range":    sum("01", "52", token, "0001", at, "00", "ffffffffffffffffff01", "904e"),
		"running, something after":       sum("01", "52", token, "0001", at, "00", times, "00"),
		"done, outcome 0":                sum("01", "44", token, "0001", at, "00", "01", "c0"),
		"done, outcome 5":                sum("01", "44", token, "0501", at, "00", "01", "c0"),
		"done, attempt 0":                sum("01", "44", token, "0100", at, "00", "01", "c0"),
		"done, no codec":                 sum("01", "44", token, "0101", at, "00"),
		"done, fingerprint to the end":   sum("01", "44", token, "0101", at, "02", "01"),
		"done, checksum of other data":   append(sum("01", "44", token, "0101", at, "00", "01")[:28], 1, 2, 3, 4),
		"done, checksum in another form": append(bytes.Clone(doneRecord().encode()), 0),
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := decodeRecord(raw)
			require.ErrorIs(t, err, ErrCorruptRecord)
		})
	}
	// The parts above do make a record when nothing is wrong with them.
	for name, raw := range map[string][]byte{
		"running": sum("01", "52", token, "0001", at, "00", times),
		"done":    sum("01", "44", token, "0101", at, "00", "01", "c0"),
	} {
		_, err := decodeRecord(raw)
		require.NoError(t, err, name)
	}
}

func TestCorruptRecordTextHasNoPayload(t *testing.T) {
	const secret = "4242-4242-4242-4242"
	r := doneRecord()
	r.payload = []byte(secret)
	raw := r.encode()
	tests := map[string][]byte{
		"cut":           raw[:len(raw)-1],
		"flipped":       append(bytes.Clone(raw[:len(raw)-1]), raw[len(raw)-1]^1),
		"other version": append([]byte{9}, raw[1:]...),
		"text":          []byte(secret),
		"short":         []byte("\x01" + secret),
	}
	for name, raw := range tests {
		_, err := decodeRecord(raw)
		require.ErrorIs(t, err, ErrCorruptRecord, name)
		assert.NotContains(t, fmt.Sprintf("%v %+v", err, err), secret, name)
	}
}

// BenchmarkEnvelope is what a record costs around its payload.
func BenchmarkEnvelope(b *testing.B) {
	for _, size := range []int{100, 10_000} {
		rec := &record{
			kind: kindDone, token: newToken(), attempt: 1, at: time.Now(),
			outcome: outcomeValue, codec: codecRaw, payload: bytes.Repeat([]byte{'x'}, size),
		}
		raw := rec.encode()
		b.Run(fmt.Sprintf("encode/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				rec.encode()
			}
		})
		b.Run(fmt.Sprintf("decode/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if _, err := decodeRecord(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestCopied(t *testing.T) {
	type plain struct {
		ID     string
		Amount [2]int64
		at     struct{ unix float64 }
		ok     bool
	}
	for _, v := range []any{true, -1, uint8(1), 1.5, 1i, "x", time.Second, plain{}, [0]string{}, struct{}{}} {
		assert.True(t, copied(reflect.TypeOf(v)), "%T", v)
	}
	for _, v := range []any{
		[]byte{}, map[string]int{}, &plain{}, time.Time{}, [1][]int{}, struct{ plain *plain }{}, struct{ v any }{},
		func() {}, make(chan int), unsafe.Pointer(nil),
	} {
		assert.False(t, copied(reflect.TypeOf(v)), "%T", v)
	}
	assert.False(t, copied(reflect.TypeFor[any]()))
}
