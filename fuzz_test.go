package idempotent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
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
		raw := g.record.encode()
		f.Add(raw, raw[2:18], uint32(1), uint64(1), []byte("f"), true, uint8(0), uint8(1), []byte("p"), uint16(3))
		f.Add(raw[:len(raw)-crc32.Size], raw[2:18], uint32(300), uint64(1793218500123), []byte{}, false, uint8(2), uint8(0), []byte{}, uint16(0))
	}
	f.Add([]byte("hello"), []byte{}, uint32(0), uint64(0), bytes.Repeat([]byte{1}, 40), true, uint8(9), uint8(255), []byte("\x01R"), uint16(65535))
	f.Fuzz(func(t *testing.T, raw, id []byte, attempt uint32, number uint64, print []byte, running bool, detail, codec uint8, payload []byte, flip uint16) {
		onlyWhatEncodeWrites(t, raw)
		onlyWhatEncodeWrites(t, binary.LittleEndian.AppendUint32(bytes.Clone(raw), crc32.Checksum(raw, castagnoli)))

		want := &record{
			attempt:     max(attempt, 1),
			at:          time.UnixMilli(int64(number % (maxMillis + 1))),
			fingerprint: append([]byte{}, print[:min(len(print), maxFingerprintSize)]...),
		}
		copy(want.token[:], id)
		if running {
			want.kind = kindRunning
			want.refuse = detail%2 == 1
			want.lease = time.Duration(number%(maxMillis+1)) * time.Millisecond
			want.retention = time.Duration(attempt) * time.Millisecond
		} else {
			want.kind = kindDone
			want.outcome = outcomeValue + outcome(detail%4)
			want.codec = codecID(codec)
			want.payload = append([]byte{}, payload...)
		}
		encoded := want.encode()
		got, err := decodeRecord(encoded)
		require.NoError(t, err)
		require.Equal(t, want, got)

		bit := int(flip) % (8 * len(encoded))
		encoded[bit/8] ^= 1 << (bit % 8)
		_, err = decodeRecord(encoded)
		require.ErrorIs(t, err, ErrCorruptRecord)
	})
}

func onlyWhatEncodeWrites(t *testing.T, raw []byte) {
	t.Helper()
	before := bytes.Clone(raw)
	rec, err := decodeRecord(raw)
	require.Equal(t, before, raw, "decoding writes into the record")
	if err != nil {
		require.ErrorIs(t, err, ErrCorruptRecord)
		require.Nil(t, rec)
		return
	}
	require.Equal(t, raw, rec.encode(), "one record has two encodings")
}

// FuzzNames: no two pairs of a namespace and a key share a name in Redis.
func FuzzNames(f *testing.F) {
	f.Add("a", "b:c", "a:b", "c")
	f.Add("a", "b", "a", "b")
	f.Add("default", "", "default", ":")
	f.Add("a.b", "c", "a", "b:c")
	f.Add("a\n", "b", "a", "\nb")
	f.Fuzz(func(t *testing.T, namespace1, key1, namespace2, key2 string) {
		for _, namespace := range []string{namespace1, namespace2} {
			cfg := defaultConfig()
			cfg.namespace = namespace
			err := validateConfig(&cfg, nil)
			if strings.Contains(err.Error(), "WithNamespace") { // one that New refuses
				require.ErrorIs(t, err, ErrInvalidOption)
				return
			}
			require.NotContains(t, namespace, ":")
		}
		same := namespace1 == namespace2 && key1 == key2
		assert.Equal(t, same, redisName(namespace1, key1) == redisName(namespace2, key2))
		same = same || HashKey(namespace1, key1) == HashKey(namespace2, key2)
		assert.Equal(t, same, namespace1 == namespace2 && key1 == key2)
	})
}

type pointerLeaf struct {
	N     int
	Inner error `json:"-"`
}

func (e *pointerLeaf) Error() string { return fmt.Sprintf("pointer %d", e.N) }
func (e *pointerLeaf) Unwrap() error { return e.Inner }

type valueLeaf struct {
	N     int
	Texts [2]string
}

func (e valueLeaf) Error() string { return fmt.Sprintf("value %d", e.N) }

type textLeaf string

func (e textLeaf) Error() string { return "text " + string(e) }

// strangerLeaf is not registered.
type strangerLeaf struct{ N int }

func (e strangerLeaf) Error() string { return fmt.Sprintf("stranger %d", e.N) }

// isLeaf matches a sentinel that it does not wrap.
type isLeaf struct{ target error }

func (e isLeaf) Error() string        { return "alias" }
func (e isLeaf) Is(target error) bool { return target == e.target }

var (
	fuzzSentinels = []error{errors.New("first"), errors.New("second"), errors.New("third")}
	errStranger   = errors.New("not registered")
)

// errorTree builds an error of the bytes: a stack machine, whose instructions push leaves and
// wrap or join what is on the stack.
func errorTree(program []byte) error {
	stack := []error{fuzzSentinels[0]}
	pop := func() error {
		top := stack[len(stack)-1]
		if len(stack) > 1 {
			stack = stack[:len(stack)-1]
		}
		return top
	}
	for pc, op := range program[:min(len(program), 64)] {
		n := int(op) / 16
		var next error
		switch op % 16 {
		case 0, 1:
			next = fuzzSentinels[n%len(fuzzSentinels)]
		case 2:
			next = errStranger
		case 3:
			next = &pointerLeaf{N: pc}
		case 4:
			next = valueLeaf{N: pc, Texts: [2]string{"", fmt.Sprint(n)}}
		case 5:
			next = textLeaf(fmt.Sprint(n))
		case 6:
			next = strangerLeaf{n}
		case 7:
			next = isLeaf{fuzzSentinels[n%len(fuzzSentinels)]}
		case 8:
			next = fmt.Errorf("%d: %w", pc, pop())
		case 9:
			next = fmt.Errorf("%w, after %w", pop(), pop())
		case 10:
			next = &pointerLeaf{N: -pc, Inner: pop()}
		case 11:
			next = Retryable(pop())
		case 12:
			next = fmt.Errorf("%v hides it", pop())
		case 13:
			next = &PanicError{Value: pop(), Stack: []byte("stack")}
		default:
			errs := make([]error, 0, n)
			for range n%4 + 1 {
				errs = append(errs, pop())
			}
			next = errors.Join(errs...)
		}
		stack = append(stack, next)
	}
	return errors.Join(stack[1:]...)
}

// FuzzErrorTree: a replayed error has the text and the matches of the one that was recorded.
func FuzzErrorTree(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte{16, 8, 8, 8, 3, 4, 5, 14})
	f.Add([]byte{2, 6, 12, 62})
	f.Add([]byte{3, 10, 10, 4, 9, 11, 13, 63, 7, 23})
	registry := NewErrorRegistry(
		Sentinel("first", fuzzSentinels[0]), Sentinel("second", fuzzSentinels[1]), Sentinel("third", fuzzSentinels[2]),
		ErrorType[*pointerLeaf]("pointer"), ErrorType[valueLeaf]("value"), ErrorType[textLeaf]("text"),
	)
	require.NoError(f, registry.err)
	f.Fuzz(func(t *testing.T, program []byte) {
		first := errorTree(program)
		if first == nil {
			return
		}
		lost := func(code string) { t.Errorf("%q is lost", code) }
		again := registry.decode(&record{kind: kindDone, outcome: outcomeError, payload: registry.encode(first, lost)}, lost)
		require.Equal(t, first.Error(), again.Error())
		require.ErrorIs(t, again, ErrReplayed)
		require.NotErrorIs(t, again, errStranger)
		for _, sentinel := range fuzzSentinels {
			require.Equal(t, errors.Is(first, sentinel), errors.Is(again, sentinel), "%v in %q", sentinel, first)
		}
		pointer, found := errors.AsType[*pointerLeaf](first)
		pointerAgain, foundAgain := errors.AsType[*pointerLeaf](again)
		require.Equal(t, found, foundAgain)
		if found {
			require.Equal(t, pointer.N, pointerAgain.N)
		}
		sameLeaf[valueLeaf](t, first, again)
		sameLeaf[textLeaf](t, first, again)
		_, found = errors.AsType[strangerLeaf](again)
		require.False(t, found)
	})
}

func sameLeaf[E error](t *testing.T, first, again error) {
	t.Helper()
	want, found := errors.AsType[E](first)
	got, foundAgain := errors.AsType[E](again)
	require.Equal(t, found, foundAgain, "a %T in %q", want, first)
	require.Equal(t, want, got)
}
