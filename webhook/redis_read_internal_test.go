package webhook

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whatever is stored, reading a header ends without a panic, and what was read is written and read as the same.
func FuzzStoredHeader(f *testing.F) {
	f.Add(encodeHeader(http.Header{"X-Many": {"a", "", "\xff"}, "X-Empty": {}}))
	f.Add([]byte{200, 200, 200})
	f.Fuzz(func(t *testing.T, stored []byte) {
		h, err := decodeHeader(stored)
		if err != nil {
			return
		}
		again, err := decodeHeader(encodeHeader(h))
		if err != nil || !maps.EqualFunc(h, again, slices.Equal) {
			t.Fatalf("%q is read as %q, then as %q: %v", stored, h, again, err)
		}
	})
}

func TestStoredHeaderOfAnotherForm(t *testing.T) {
	whole := encodeHeader(http.Header{"X-Name": {"value", "another"}})
	for end := 1; end < len(whole); end++ {
		_, err := decodeHeader(whole[:end])
		assert.ErrorIs(t, err, errHeader, "%d of %d bytes", end, len(whole))
	}
	_, err := decodeHeader([]byte{1, 'a', 250, 250, 250, 250, 1}) // a count that would take gigabytes
	assert.ErrorIs(t, err, errHeader)
}

func TestStoredSteps(t *testing.T) {
	at := time.UnixMicro(1795824816000001).UTC()
	for _, s := range []Step{
		{At: at, State: Dead, By: "host:1", TraceID: strings.Repeat("a", 32), Attempt: 7, Note: "cause: reason" + fieldSeparator + "more"},
		{At: at},
	} {
		got, ok := decodeStep(encodeStep(s))
		require.True(t, ok)
		assert.Equal(t, s, got)
	}
	s, ok := decodeStep(encodeStep(Step{At: at, By: "a" + fieldSeparator + "b", Note: "n"}))
	require.True(t, ok)
	assert.Equal(t, "a b", s.By)
	assert.Equal(t, "n", s.Note)
	_, ok = decodeStep("another form")
	assert.False(t, ok)
	r, ok := decodeReceipt(encodeReceipt(Receipt{At: at, Peer: "::1"}))
	require.True(t, ok)
	assert.Equal(t, Receipt{At: at, Peer: "::1"}, r)
}
