package record

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// FuzzRecord: what decodes is what encode writes, byte for byte; everything else is refused, and
// nothing panics. The input is tried as it is and with the right checksum put behind it, which is
// what gets past the first check; the fields make a record of their own.
func FuzzRecord(f *testing.F) {
	for _, g := range golden {
		raw := g.record.Encode()
		f.Add(raw, raw[2:18], uint32(1), uint64(1), []byte("f"), true, uint8(0), uint8(1), []byte("p"), []byte{}, uint16(3))
		f.Add(raw[:len(raw)-crc32.Size], raw[2:18], uint32(300), uint64(1793218500123), []byte{}, false, uint8(2), uint8(0), []byte{}, []byte{1, 1, 7, 9, 1, 7}, uint16(0))
	}
	f.Add([]byte("hello"), []byte{}, uint32(0), uint64(0), bytes.Repeat([]byte{1}, 40), true, uint8(9), uint8(255), []byte("\x01R"), []byte{9, 2, 7}, uint16(65535))
	f.Fuzz(func(t *testing.T, raw, id []byte, attempt uint32, number uint64, print []byte, running bool, detail, codec uint8, payload, extensions []byte, flip uint16) {
		onlyWhatEncodeWrites(t, raw)
		onlyWhatEncodeWrites(t, binary.LittleEndian.AppendUint32(bytes.Clone(raw), crc32.Checksum(raw, castagnoli)))

		want := &Record{
			Attempt:     max(attempt, 1),
			At:          time.UnixMilli(int64(number % (maxMillis + 1))),
			Fingerprint: append([]byte{}, print[:min(len(print), MaxFingerprintSize)]...),
		}
		copy(want.Token[:], id)
		want.Extensions = someExtensions(extensions)
		if running {
			want.Kind = KindRunning
			want.Refuse = detail%2 == 1
			want.Lease = time.Duration(number%(maxMillis+1)) * time.Millisecond
			want.Retention = time.Duration(attempt) * time.Millisecond
		} else {
			want.Kind = KindDone
			want.Outcome = OutcomeValue + Outcome(detail%5)
			want.Codec = CodecID(codec)
			want.Payload = append([]byte{}, payload...)
		}
		encoded := want.Encode()
		got, err := Decode(encoded)
		require.NoError(t, err)
		require.Equal(t, want, got)

		bit := int(flip) % (8 * len(encoded))
		encoded[bit/8] ^= 1 << (bit % 8)
		_, err = Decode(encoded)
		require.ErrorIs(t, err, ErrCorrupt)
	})
}

// someExtensions makes fields of any bytes: each gives a number, a length and a value's byte.
func someExtensions(of []byte) (e Extensions) {
	for len(of) >= 3 {
		next := e.With(Field(max(of[0], 1)), bytes.Repeat(of[2:3], max(int(of[1]), 1)))
		if len(next) <= maxExtensionsSize {
			e = next
		}
		of = of[3:]
	}
	return e
}

// FuzzExtensions: what is written under a number is found there and nowhere else; fields that this code
// does not know outlive a take-over unchanged, and the result can be decoded.
func FuzzExtensions(f *testing.F) {
	f.Add([]byte{9, 4, 1, 3, 2, 5}, []byte{1, 9, 'm', 2, 25, 0}, byte(3), []byte("value"))
	f.Add([]byte{200, 255, 1, 100, 250, 2}, []byte{1, 64, 'm', 2, 25, 0}, byte(255), []byte{})
	f.Fuzz(func(t *testing.T, dead, own []byte, number byte, value []byte) {
		before, mine := someExtensions(dead), someExtensions(own).known()
		untouched := bytes.Clone(before)
		next := mine.Inherit(before)
		require.True(t, next.wellFormed())
		require.LessOrEqual(t, len(next), maxExtensionsSize)
		for f, value := range before.fields {
			if !f.known() {
				require.Equal(t, value, next.Get(f))
			}
		}
		for f := range next.fields {
			require.True(t, len(before.Get(f)) > 0 || len(mine.Get(f)) > 0)
			require.True(t, !f.known() || bytes.Equal(mine.Get(f), next.Get(f)), "of the dead owner")
		}

		changed, number := Field(max(number, 1)), max(number, 1)
		value = append([]byte{number}, value[:min(len(value), 254)]...)
		with := before.With(changed, value)
		require.True(t, with.wellFormed())
		require.Equal(t, value, with.Get(changed))
		without := with.Without(changed)
		require.True(t, without.wellFormed())
		require.Nil(t, without.Get(changed))
		for f, value := range before.fields {
			if f != changed {
				require.Equal(t, value, with.Get(f))
				require.Equal(t, value, without.Get(f))
			}
		}
		require.Equal(t, untouched, []byte(before), "extensions are shared, and must not change")
	})
}

func (e Extensions) known() (known Extensions) {
	for f, value := range e.fields {
		if f.known() {
			known = known.With(f, value[:min(len(value), MaxOwnerSize)])
		}
	}
	return known
}

func onlyWhatEncodeWrites(t *testing.T, raw []byte) {
	t.Helper()
	before := bytes.Clone(raw)
	rec, err := Decode(raw)
	require.Equal(t, before, raw, "decoding writes into the record")
	if err != nil {
		require.ErrorIs(t, err, ErrCorrupt)
		require.Nil(t, rec)
		return
	}
	require.Equal(t, raw, rec.Encode(), "one record has two encodings")
}

// FuzzNames: no two pairs of a namespace and a key share a name in Redis. A namespace never has a colon.
func FuzzNames(f *testing.F) {
	f.Add("a", "b:c", "a:b", "c")
	f.Add("a", "b", "a", "b")
	f.Add("default", "", "default", ":")
	f.Add("a.b", "c", "a", "b:c")
	f.Add("a\n", "b", "a", "\nb")
	f.Fuzz(func(t *testing.T, namespace1, key1, namespace2, key2 string) {
		if bytes.ContainsRune([]byte(namespace1+namespace2), ':') {
			return
		}
		same := namespace1 == namespace2 && key1 == key2
		assert.Equal(t, same, Name(namespace1, key1) == Name(namespace2, key2))
	})
}
