package idemhttp_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent/idemhttp"
)

// Requirement 2: the header.

var (
	goodKeys = map[string][]string{
		`"8e03978e-40d5-43e8-bc93-6894a57f9324"`: {`"8e03978e-40d5-43e8-bc93-6894a57f9324"`},
		`8e03978e-40d5-43e8-bc93-6894a57f9324`:   {`8e03978e-40d5-43e8-bc93-6894a57f9324`},
		"base64 and URN, bare":                   {"urn:order/42=="},
		"blanks around it":                       {"  abc\t"},
		"blanks, quotes and commas, quoted":      {`"order 42, \"first\" \\ part"`},
		"parameters are ignored":                 {`"abc";v=1`},
		"255 characters":                         {strings.Repeat("k", 255)},
		"255 characters that are escaped":        {`"` + strings.Repeat(`\"`, 255) + `"`},
		"the same value twice":                   {"abc", "abc"},
		"the same value twice, quoted once":      {"abc", `"abc"`},
		"one character":                          {"x"},
	}
	badKeys = map[string][]string{
		"empty":                             {""},
		"blank":                             {"   "},
		"empty string":                      {`""`},
		"256 characters":                    {strings.Repeat("k", 256)},
		"256 characters, quoted":            {`"` + strings.Repeat("k", 256) + `"`},
		"not ASCII":                         {"schlüssel"},
		"not ASCII, quoted":                 {`"schlüssel"`},
		"control character":                 {"a\x01b"},
		"control character, quoted":         {"\"a\x7fb\""},
		"tab, quoted":                       {"\"a\tb\""},
		"twice with different values":       {"abc", "abd"},
		"twice, once empty":                 {"abc", ""},
		"two values in one line":            {"abc, abd"},
		"two strings in one line":           {`"abc", "abd"`},
		"the same string twice in one line": {`"abc", "abc"`},
		"quote not closed":                  {`"abc`},
		"quote not opened":                  {`abc"`},
		"quote inside":                      {`a"b`},
		"data after the quote":              {`"abc"def`},
		"bad escape":                        {`"a\bc"`},
		"escape at the end":                 {`"abc\`},
		"bare, with a blank":                {"order 42"},
		"bare, with parameters":             {"abc;v=1"},
		"bare, with a backslash":            {`a\b`},
		"only quotes":                       {`"`},
	}
)

// direct calls the middleware without a network, which would refuse some header values itself.
func (w *world) direct(keys []string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header[idemhttp.KeyHeader] = keys
	rec := httptest.NewRecorder()
	w.server.Config.Handler.ServeHTTP(rec, r)
	return rec
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for name, keys := range goodKeys {
		t.Run("good: "+name, func(t *testing.T) {
			w := serve(t, created)
			for range 2 {
				require.Equal(t, http.StatusCreated, w.direct(keys).Code)
			}
			w.ran(1)
		})
	}
	for name, keys := range badKeys {
		t.Run("bad: "+name, func(t *testing.T) {
			w := serve(t, created)
			w.redis.Fail("ERR nothing may be looked up")
			got := w.direct(keys)
			require.Equal(t, http.StatusBadRequest, got.Code, got.Body)
			assert.Contains(t, got.Body.String(), idemhttp.TypeKeyInvalid)
			w.ran(0)
		})
	}
}

func TestQuotedAndBareAreTheSameKey(t *testing.T) {
	t.Parallel()
	w := serve(t, created)
	w.post("abc", "")
	assert.True(t, w.post(`"abc"`, "").replayed())
	w.ran(1)
}

func TestStrictKey(t *testing.T) {
	t.Parallel()
	w := serve(t, created, idemhttp.WithStrictKey())
	for _, keys := range [][]string{{"abc"}, {`"abc"`, `"abc"`}, {"?1"}, {":YWJj:"}, {"42"}, {""}} {
		assert.Equal(t, http.StatusBadRequest, w.direct(keys).Code, keys)
	}
	w.ran(0)
	assert.Equal(t, http.StatusCreated, w.direct([]string{`"abc"`}).Code)
	w.ran(1)
}

func TestKeyFormat(t *testing.T) {
	t.Parallel()
	w := serve(t, created, idemhttp.WithKeyFormat(idemhttp.UUIDKey))
	for _, bad := range []string{"abc", "urn:uuid:8e03978e-40d5-43e8-bc93-6894a57f9324", "{8e03978e-40d5-43e8-bc93-6894a57f9324}", "8e03978e40d543e8bc936894a57f9324"} {
		p := w.post(bad, "").problem(t, http.StatusBadRequest, idemhttp.TypeKeyInvalid)
		assert.Contains(t, p.Detail, "must be a UUID")
	}
	w.ran(0)
	assert.Empty(t, w.stored())
	assert.Equal(t, http.StatusCreated, w.post("8e03978e-40d5-43e8-bc93-6894a57f9324", "").StatusCode)

	w = serve(t, created, idemhttp.WithKeyFormat(func(key string) error {
		assert.Equal(t, "abc", key, "without its quotes")
		return errors.New("keys are closed today")
	}))
	p := w.post(`"abc"`, "").problem(t, http.StatusBadRequest, idemhttp.TypeKeyInvalid)
	assert.Contains(t, p.Detail, "keys are closed today")
}
