package record

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var goldenToken = Token{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}

func runningRecord() *Record {
	return &Record{
		Kind:        KindRunning,
		Token:       goldenToken,
		Attempt:     3,
		At:          time.UnixMilli(1793218500123),
		Fingerprint: []byte{1, 2, 3, 4, 5},
		Extensions:  Extensions{1, 2, 'm', '1', 9, 1, 0xee},
		Refuse:      true,
		Lease:       10 * time.Second,
		Retention:   24 * time.Hour,
	}
}

func doneRecord() *Record {
	return &Record{
		Kind:        KindDone,
		Token:       goldenToken,
		Attempt:     300,
		At:          time.UnixMilli(1793218500123),
		Fingerprint: []byte{},
		Outcome:     OutcomeValue,
		Codec:       CodecMsgpack,
		Payload:     []byte("\xa7charged"),
	}
}

// golden holds the records as they are stored. Records outlive the program that wrote them: a
// change of these bytes needs a new Version.
var golden = map[string]struct {
	record *Record
	hex    []string
}{
	"running": {runningRecord(), []string{
		"01", "52", "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf", // version, kind, token
		"01", "03", "9bac9ba19834", // Refuse, attempt, at
		"05", "0102030405", // fingerprint
		"07", "01026d31", "0901ee", // extensions: owner, one that this code does not know
		"904e", "80b89929", // lease, retention
		"0ef01456", // checksum
	}},
	"done": {doneRecord(), []string{
		"01", "44", "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf", // version, kind, token
		"01", "ac02", "9bac9ba19834", // value, attempt, at
		"00",                     // no fingerprint
		"00",                     // no extensions
		"01", "a763686172676564", // codec, payload
		"900346b6", // checksum
	}},
}

func TestRecordBytes(t *testing.T) {
	for name, test := range golden {
		t.Run(name, func(t *testing.T) {
			want := strings.Join(test.hex, "")
			require.Equal(t, want, hex.EncodeToString(test.record.Encode()))
			raw, err := hex.DecodeString(want)
			require.NoError(t, err)
			got, err := Decode(raw)
			require.NoError(t, err)
			require.Equal(t, test.record, got)
		})
	}
}

// The numbers inside records are stored, so they must not move.
func TestRecordNumbers(t *testing.T) {
	assert.Equal(t, 1, Version)
	assert.Equal(t, []Outcome{1, 2, 3, 4, 5}, []Outcome{OutcomeValue, OutcomeError, OutcomePanic, OutcomeInterrupted, OutcomeValueNotKept})
	assert.Equal(t, []CodecID{0, 1, 2, 3}, []CodecID{CodecCustom, CodecMsgpack, CodecJSON, CodecRaw})
}

func TestRecordRoundTrip(t *testing.T) {
	change := func(base func() *Record, change func(*Record)) *Record {
		r := base()
		change(r)
		return r
	}
	tests := map[string]*Record{
		"running":                    runningRecord(),
		"running, rerun":             change(runningRecord, func(r *Record) { r.Refuse = false }),
		"running, first attempt":     change(runningRecord, func(r *Record) { r.Attempt = 1 }),
		"running, last attempt":      change(runningRecord, func(r *Record) { r.Attempt = math.MaxUint32 }),
		"running, shortest times":    change(runningRecord, func(r *Record) { r.Lease, r.Retention = 0, time.Millisecond }),
		"running, longest fingerp.":  change(runningRecord, func(r *Record) { r.Fingerprint = bytes.Repeat([]byte{0xff}, MaxFingerprintSize) }),
		"running, long ago":          change(runningRecord, func(r *Record) { r.At = time.UnixMilli(0) }),
		"done, value":                doneRecord(),
		"done, error":                change(doneRecord, func(r *Record) { r.Outcome = OutcomeError }),
		"done, panic":                change(doneRecord, func(r *Record) { r.Outcome = OutcomePanic }),
		"done, interrupted":          change(doneRecord, func(r *Record) { r.Outcome, r.Payload = OutcomeInterrupted, []byte{} }),
		"done, empty payload":        change(doneRecord, func(r *Record) { r.Payload = []byte{} }),
		"done, large payload":        change(doneRecord, func(r *Record) { r.Payload = bytes.Repeat([]byte{0, 0xff}, 1<<19) }),
		"done, payload like records": change(doneRecord, func(r *Record) { r.Payload = runningRecord().Encode() }),
		"done, unknown codec":        change(doneRecord, func(r *Record) { r.Codec = 200 }),
		"done, largest extensions":   change(doneRecord, func(r *Record) { r.Extensions = largestExtensions() }),
		"running, an unknown field":  change(runningRecord, func(r *Record) { r.Extensions = Extensions{200, 3, 1, 2, 3} }),
		"running, owner and origin":  change(runningRecord, func(r *Record) { r.Extensions = knownExtensions() }),
		"done, token of zeros":       change(doneRecord, func(r *Record) { r.Token = Token{} }),
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Decode(want.Encode())
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestRecordHeadIsWhatScriptsCompare(t *testing.T) {
	for _, r := range []*Record{runningRecord(), doneRecord()} {
		head := r.Encode()[:HeadSize]
		assert.EqualValues(t, Version, head[0])
		assert.Equal(t, r.Kind, head[1])
		assert.Equal(t, goldenToken[:], head[2:18])
	}
}

func TestRecordOverhead(t *testing.T) {
	payload := []byte("payload")
	r := doneRecord()
	r.Attempt, r.Fingerprint, r.Payload = 1, bytes.Repeat([]byte{7}, MaxFingerprintSize), payload
	assert.LessOrEqual(t, len(r.Encode())-len(payload), 65)
	r.At = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	assert.LessOrEqual(t, len(r.Encode())-len(payload), 65)
	r.Attempt = 100
	assert.LessOrEqual(t, len(r.Encode())-len(payload), 65)
}

func TestPayloadInIsTheRecordsOwn(t *testing.T) {
	r := doneRecord()
	raw := r.Encode()
	payload := PayloadIn(raw, len(r.Payload))
	require.Equal(t, r.Payload, payload)
	assert.Equal(t, len(payload), cap(payload), "appending to it must not write into the record")
	payload[0] ^= 0xff
	assert.NotEqual(t, payload, r.Payload)
}

func TestRecordRefusesEveryBitFlip(t *testing.T) {
	for name, test := range golden {
		t.Run(name, func(t *testing.T) {
			raw := test.record.Encode()
			for bit := range 8 * len(raw) {
				flipped := bytes.Clone(raw)
				flipped[bit/8] ^= 1 << (bit % 8)
				_, err := Decode(flipped)
				require.ErrorIs(t, err, ErrCorrupt, "bit %d of byte %d", bit%8, bit/8)
			}
		})
	}
}

func TestRecordRefusesEveryTruncation(t *testing.T) {
	for name, test := range golden {
		t.Run(name, func(t *testing.T) {
			raw := test.record.Encode()
			for n := range raw {
				_, err := Decode(raw[:n])
				require.ErrorIs(t, err, ErrCorrupt, "the first %d of %d bytes", n, len(raw))
				_, err = Decode(raw[len(raw)-n:])
				require.ErrorIs(t, err, ErrCorrupt, "the last %d of %d bytes", n, len(raw))
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
		"version 0":                      sum("00", "52", token, "0001", at, "00", "00", times),
		"version 2":                      sum("02", "52", token, "0001", at, "00", "00", times),
		"version 2, done":                sum("02", "44", token, "0101", at, "00", "00", "01", "c0"),
		"unknown kind":                   sum("01", "53", token, "0001", at, "00", "00", times),
		"kind in lower case":             sum("01", "72", token, "0001", at, "00", "00", times),
		"head alone":                     sum("01", "52", token),
		"running, unknown detail":        sum("01", "52", token, "0201", at, "00", "00", times),
		"running, attempt 0":             sum("01", "52", token, "0000", at, "00", "00", times),
		"running, attempt too long":      sum("01", "52", token, "00", "8100", at, "00", "00", times),
		"running, attempt over 32 bits":  sum("01", "52", token, "00", "8080808010", at, "00", "00", times),
		"running, attempt over 64 bits":  sum("01", "52", token, "00", "ffffffffffffffffff7f", at, "00", "00", times),
		"running, endless attempt":       sum("01", "52", token, "00", "ffffffffffffffffffffff"),
		"running, time out of range":     sum("01", "52", token, "0001", "ffffffffffffffffff01", "00", "00", times),
		"running, fingerprint too long":  sum("01", "52", token, "0001", at, "21", strings.Repeat("07", 33), "00", times),
		"running, extensions cut":        sum("01", "52", token, "0001", at, "00", "04", "0102aa"),
		"running, field cut":             sum("01", "52", token, "0001", at, "00", "03", "0102aa", times),
		"running, field without length":  sum("01", "52", token, "0001", at, "00", "01", "01", times),
		"running, field 0":               sum("01", "52", token, "0001", at, "00", "03", "0001aa", times),
		"running, empty field":           sum("01", "52", token, "0001", at, "00", "02", "0100", times),
		"running, field twice":           sum("01", "52", token, "0001", at, "00", "06", "0901aa", "0901aa", times),
		"running, fields in no order":    sum("01", "52", token, "0001", at, "00", "06", "0901aa", "0801aa", times),
		"running, extensions too long":   sum("01", "52", token, "0001", at, "00", "8404", strings.Repeat("01ff"+strings.Repeat("aa", 255), 2), "0300", times),
		"running, endless extensions":    sum("01", "52", token, "0001", at, "00", "ffffffffffffffffff01", times),
		"running, fingerprint cut":       sum("01", "52", token, "0001", at, "20", "0707", "00", times),
		"running, no times":              sum("01", "52", token, "0001", at, "00", "00"),
		"running, one time":              sum("01", "52", token, "0001", at, "00", "00", "904e"),
		"running, lease out of range":    sum("01", "52", token, "0001", at, "00", "00", "ffffffffffffffffff01", "904e"),
		"running, something after":       sum("01", "52", token, "0001", at, "00", "00", times, "00"),
		"done, outcome 0":                sum("01", "44", token, "0001", at, "00", "00", "01", "c0"),
		"done, outcome 6":                sum("01", "44", token, "0601", at, "00", "00", "01", "c0"),
		"done, attempt 0":                sum("01", "44", token, "0100", at, "00", "00", "01", "c0"),
		"done, no codec":                 sum("01", "44", token, "0101", at, "00", "00"),
		"done, fingerprint to the end":   sum("01", "44", token, "0101", at, "02", "01"),
		"done, checksum of other data":   append(sum("01", "44", token, "0101", at, "00", "00", "01")[:29], 1, 2, 3, 4),
		"done, checksum in another form": append(bytes.Clone(doneRecord().Encode()), 0),
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(raw)
			require.ErrorIs(t, err, ErrCorrupt)
		})
	}
	// The parts above do make a record when nothing is wrong with them.
	for name, raw := range map[string][]byte{
		"running": sum("01", "52", token, "0001", at, "00", "00", times),
		"done":    sum("01", "44", token, "0101", at, "00", "00", "01", "c0"),
	} {
		_, err := Decode(raw)
		require.NoError(t, err, name)
	}
}

func TestCorruptRecordTextHasNoPayload(t *testing.T) {
	const secret = "4242-4242-4242-4242"
	r := doneRecord()
	r.Payload = []byte(secret)
	raw := r.Encode()
	tests := map[string][]byte{
		"cut":           raw[:len(raw)-1],
		"flipped":       append(bytes.Clone(raw[:len(raw)-1]), raw[len(raw)-1]^1),
		"other version": append([]byte{9}, raw[1:]...),
		"text":          []byte(secret),
		"short":         []byte("\x01" + secret),
	}
	for name, raw := range tests {
		_, err := Decode(raw)
		require.ErrorIs(t, err, ErrCorrupt, name)
		assert.NotContains(t, fmt.Sprintf("%v %+v", err, err), secret, name)
	}
}

// BenchmarkEnvelope is what a record costs around its payload.
func BenchmarkEnvelope(b *testing.B) {
	for _, size := range []int{100, 10_000} {
		rec := &Record{
			Kind: KindDone, Token: NewToken(), Attempt: 1, At: time.Now(),
			Outcome: OutcomeValue, Codec: CodecRaw, Payload: bytes.Repeat([]byte{'x'}, size),
		}
		raw := rec.Encode()
		b.Run(fmt.Sprintf("encode/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				rec.Encode()
			}
		})
		b.Run(fmt.Sprintf("decode/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if _, err := Decode(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
