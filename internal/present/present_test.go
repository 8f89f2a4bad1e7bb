package present

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
)

func TestTextIsSafeAndComesBack(t *testing.T) {
	for text, shown := range map[string]string{
		"order-42":        "order-42",
		"with a space":    "with a space",
		"größe":           "größe",
		"":                `""`,
		" padded":         `" padded"`,
		`"quoted"`:        `"\"quoted\""`,
		`back\slash`:      `"back\\slash"`,
		"\x1b[31mred":     `"\x1b[31mred"`,
		"a\nb\x00\xff":    `"a\nb\x00\xff"`,
		"right\u202eleft": `"right\u202eleft"`,
		"no\u00a0break":   "\"no\\u00a0break\"",
		"zero\u200bwidth": `"zero\u200bwidth"`,
	} {
		assert.Equal(t, shown, Text(text))
		assert.Equal(t, text, Unquote(shown))
	}
	assert.Equal(t, `"not a Go string`, Unquote(`"not a Go string`))
}

func TestSpanAndSize(t *testing.T) {
	for d, text := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59*time.Second + 999*time.Millisecond: "59s", time.Minute: "1m0s", time.Hour - 1: "59m59s",
		61 * time.Minute: "1h1m", 100 * time.Hour: "4d4h",
	} {
		assert.Equal(t, text, Span(d))
	}
	assert.Equal(t, "1023 B, 1.0 KiB, 1.0 MiB", strings.Join([]string{Size(1023), Size(1024), Size(1 << 20)}, ", "))
}

func TestValuesComeBack(t *testing.T) {
	type charge struct {
		ID     string
		Amount int64
		Big    uint64
		Rate   float64
		At     time.Time
		Parts  []int
	}
	raw, err := Encode(`{"ID":"ch_1","Amount":-9007199254740993,"Big":18446744073709551615,"Rate":1.5,"At":"2026-01-02T03:04:05Z","Parts":[1,2]}`, "msgpack")
	require.NoError(t, err)
	var got charge
	require.NoError(t, msgpack.Unmarshal(raw, &got))
	assert.Equal(t, charge{"ch_1", -9007199254740993, math.MaxUint64, 1.5, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), []int{1, 2}}, got)
	text, ok := Decode(raw, "msgpack")
	require.True(t, ok)
	assert.JSONEq(t, `{"ID":"ch_1","Amount":-9007199254740993,"Big":18446744073709551615,"Rate":1.5,"At":"2026-01-02T03:04:05Z","Parts":[1,2]}`, string(text))

	raw, err = Encode("{}", "json")
	require.NoError(t, err)
	assert.Equal(t, "{}", string(raw))
	raw, err = Encode("anything", "raw")
	require.NoError(t, err)
	assert.Equal(t, "anything", string(raw))
}

func TestValuesThatWouldChangeAreRefused(t *testing.T) {
	for value, codec := range map[string]string{
		"{": "msgpack", "{} {}": "msgpack", "": "JSON", "1": "gob", "18446744073709551616": "msgpack", "1e999": "msgpack", "[1e999]": "msgpack", `{"a":1e999}`: "msgpack",
	} {
		_, err := Encode(value, codec)
		require.Error(t, err, value)
	}
	for payload, codec := range map[string]string{"\xa7char": "msgpack", "\x01\x02": "msgpack", "{": "JSON", "\x01": "raw"} {
		_, ok := Decode([]byte(payload), codec)
		assert.False(t, ok, "%q", payload)
	}
}
