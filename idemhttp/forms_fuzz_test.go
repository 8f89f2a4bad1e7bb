package idemhttp

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// FuzzCanonicalJSON: the canonical form is that of itself, and of nothing that was no JSON.
func FuzzCanonicalJSON(f *testing.F) {
	for _, seed := range []string{`{"b":1,"a":[1e2,-0,"\u00e9",null,{}]}`, `9007199254740993`, `[`, `1e400`, `{"a":{"a":1}}`, "[[[[]]]]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		once, err := canonicalJSON([]byte(body), []string{"/a", "/0"})
		if err != nil {
			return
		}
		all, err := canonicalJSON([]byte(body), nil)
		require.NoError(t, err)
		again, err := canonicalJSON(all, nil)
		require.NoError(t, err)
		assert.Equal(t, string(all), string(again))
		twice, err := canonicalJSON(all, []string{"/a", "/0"})
		require.NoError(t, err)
		assert.Equal(t, string(once), string(twice))
	})
}

// FuzzRouteName: it ends, and is that of itself.
func FuzzRouteName(f *testing.F) {
	for _, seed := range []string{"POST /a/{id}", "/{a...}/{$}", "/a/{b:[0-9]{3}}", ":a/*b", "{", "}", "{{}}", "GET  /"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		name := routeName(pattern)
		assert.LessOrEqual(t, len(name), len(pattern))
	})
}
