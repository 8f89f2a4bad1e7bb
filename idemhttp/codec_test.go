package idemhttp

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/idemtest"
)

var responses = []response{
	{status: 200, body: []byte{}, decoded: true},
	{status: 204, body: []byte{}, decoded: true},
	{status: 599, header: http.Header{"A": {"1", "", "2"}, "b": nil}, deleted: []string{"C", "D"}, body: []byte("body"), decoded: true},
	{status: 201, trailer: http.Header{"X": {"1"}, http.TrailerPrefix + "Y": {"2"}}, body: bytes.Repeat([]byte{0, 255}, 10000), decoded: true},
	{status: 201, expires: 4102444800, withheld: true, decoded: true},
	{status: 200, expires: 1, body: []byte("x"), redacted: true, decoded: true},
}

func TestCodecRoundTrip(t *testing.T) { idemtest.CodecRoundTrip(t, codec{}, responses...) }

func TestCodecLeavesOut(t *testing.T) {
	r := response{status: 200, withheld: true, body: []byte("secret"), private: http.Header{"Set-Cookie": {"secret"}}, header: http.Header{"X": {"secret"}}}
	assert.NotContains(t, string(r.encode()), "secret")
	r.withheld, r.stored = false, &response{status: 200}
	assert.NotContains(t, string(r.encode()), "secret")
	r.stored, r.body, r.header = nil, nil, nil
	assert.NotContains(t, string(r.encode()), "secret")
}

// The record of one is what all get, so that it must not depend on the order of a map.
func TestCodecIsDeterministic(t *testing.T) {
	r := response{status: 200, header: http.Header{}}
	for c := 'A'; c <= 'Z'; c++ {
		r.header[string(c)] = []string{"x"}
	}
	want := r.encode()
	for range 100 {
		require.Equal(t, want, r.encode())
	}
}

func TestCodecRefuses(t *testing.T) {
	for _, r := range responses {
		data := r.encode()
		for n := range len(data) - len(r.body) {
			_, err := decodeResponse(data[:n])
			assert.Error(t, err, "%d of %d bytes", n, len(data))
		}
	}
	for name, data := range map[string][]byte{
		"nothing":                nil,
		"version":                {2, 0, 200, 1, 0, 0, 0, 0},
		"flags":                  {1, 4, 200, 1, 0, 0, 0, 0},
		"status":                 {1, 0, 99, 0, 0, 0, 0},
		"expiry after year 9999": {1, 0, 200, 1, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0},
		"data after a tombstone": {1, 1, 200, 1, 0, 0},
		"a count without end":    {1, 0, 200, 1, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1},
		"too many fields":        {1, 0, 200, 1, 0, 100, 0, 0},
	} {
		_, err := decodeResponse(data)
		assert.Error(t, err, name)
	}
}

func TestDecodeDoesNotKeepItsInput(t *testing.T) {
	data := responses[2].encode()
	r, err := decodeResponse(data)
	require.NoError(t, err)
	for i := range data {
		data[i] = 'x'
	}
	assert.Equal(t, responses[2], r)
}

func FuzzDecodeResponse(f *testing.F) {
	for _, r := range responses {
		f.Add(r.encode())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeResponse(data)
		if err != nil {
			return
		}
		again, err := decodeResponse(r.encode())
		require.NoError(t, err)
		assert.Equal(t, r, again)
	})
}

func TestRetryAfterIsRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]int64{0: 1, 1: 1, time.Second: 1, time.Second + 1: 2, 9*time.Second + time.Millisecond: 10} {
		assert.Equal(t, want, seconds(d), d)
	}
}

// FuzzKey: whatever comes, it is a key within the rules or an error, and a key that is written as
// a structured-field String is that key.
func FuzzKey(f *testing.F) {
	for _, seed := range []string{"", "abc", `"abc"`, `"a\"b"`, `"abc`, "a b", "a,b", "\x00", "\xff", `"x";p=1`, `""`, "?1", "1.5", ":YQ==:"} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, value string, strict bool) {
		key, err := parseKey(value, strict)
		if err != nil {
			assert.Empty(t, key)
			return
		}
		require.NotEmpty(t, key)
		quoted := []byte{'"'}
		for i := range len(key) {
			require.True(t, key[i] >= ' ' && key[i] <= '~', "%q", key)
			if key[i] == '"' || key[i] == '\\' {
				quoted = append(quoted, '\\')
			}
			quoted = append(quoted, key[i])
		}
		again, err := parseKey(string(append(quoted, '"')), true)
		require.NoError(t, err)
		assert.Equal(t, key, again)
	})
}
