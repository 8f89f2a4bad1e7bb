package idemhttp_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/idempotent-go/idempotent/idemhttp"
)

// same reports whether two JSON bodies are the same request.
func same(t *testing.T, a, b string, ignore ...string) bool {
	t.Helper()
	w := serve(t, created, idemhttp.WithFingerprint(idemhttp.FingerprintJSON(ignore...)))
	assert.Equal(t, http.StatusCreated, w.send(request{key: "k", body: a, header: asJSON}).StatusCode, a)
	got := w.send(request{key: "k", body: b, header: http.Header{"Content-Type": {"application/json; charset=utf-8"}}})
	if got.StatusCode != http.StatusUnprocessableEntity {
		assert.True(t, got.replayed())
	}
	return got.replayed()
}

func TestFingerprintJSON(t *testing.T) {
	for _, pair := range [][2]string{
		{`{"a":1,"b":{"c":[1,2],"d":null}}`, " {\"b\" : {\"d\":null,\n\"c\":[ 1, 2 ]}, \"a\":1}\n"},
		{`{"a":"é\/"}`, `{"a":"\u00e9/"}`},
		{`{"a":1,"b":100,"c":1e2,"d":-0}`, `{"a":1.0,"b":1e2,"c":100,"d":0}`},
		{`{"a":0.1,"b":1.50}`, `{"a":0.10,"b":15E-1}`},
		{`[9007199254740993,1]`, `[9007199254740993, 1.0]`},
		{`{"€":1,"\r":2,"1":3,"😀":4,"ö":5}`, `{"😀":4,"ö":5,"1":3,"\r":2,"€":1}`},
		{`7`, ` 7.0 `}, {`"x"`, `"\u0078"`}, {`[]`, `[ ]`}, {``, ``},
	} {
		assert.True(t, same(t, pair[0], pair[1]), pair)
	}
	for _, pair := range [][2]string{
		{`{"a":1}`, `{"a":2}`}, {`{"a":1}`, `{"a":"1"}`}, {`{"a":1}`, `{"A":1}`}, {`[1,2]`, `[2,1]`}, {`{"a":null}`, `{}`}, {`{"a":[]}`, `{"a":{}}`},
		{`{"a":9007199254740993}`, `{"a":9007199254740992}`}, {`{"a":0.10000000000000000001}`, `{"a":0.1}`}, {`{"a":1e400}`, `{"a":1e401}`},
		{`{"a":12345678901234567890.01}`, `{"a":12345678901234567890.02}`}, {`1e999999999999999999999`, `1e999999999999999999998`},
		{`{"a":1}`, `{"a":1} {"a":2}`}, {`{"a":1,"a":2}`, `{"a":2}`}, {`{"a":1,"a":2}`, `{"a":1}`}, {`{"a":`, `{"a": `}, {"{\"a\":\"\xff\"}", "{\"a\":\"\xfe\"}"},
		{`{"a":1}`, ``}, {`"JSON"`, `JSON`},
	} {
		assert.False(t, same(t, pair[0], pair[1]), pair)
	}
}

func TestFingerprintJSONIgnores(t *testing.T) {
	ignore := []string{"/sent_at", "/meta/trace~1id", "/list/1"}
	for _, pair := range [][2]string{
		{`{"sent_at":1,"a":1}`, `{"a":1,"sent_at":{"x":[1]}}`}, {`{"sent_at":1,"a":1}`, `{"a":1}`},
		{`{"meta":{"trace/id":1,"b":2}}`, `{"meta":{"b":2,"trace/id":"x"}}`},
		{`{"list":[1,2,3]}`, `{"list":[1,{"x":[]},3]}`}, {`{"list":[1,"a",3]}`, `{"list":[1,[9],3]}`},
	} {
		assert.True(t, same(t, pair[0], pair[1], ignore...), pair)
	}
	for _, pair := range [][2]string{
		{`{"x":{"sent_at":1}}`, `{"x":{"sent_at":2}}`}, {`{"sent_at":1,"a":1}`, `{"sent_at":1,"a":2}`}, {`{"list":[1,2,3]}`, `{"list":[1,2,4]}`},
		{`{"list":[1,{"a":1},3]}`, `{"list":[1,{"a":1},{"a":3}]}`},
	} {
		assert.False(t, same(t, pair[0], pair[1], ignore...), pair)
	}
}

// Other content is compared byte by byte.
func TestFingerprintJSONOfOtherContent(t *testing.T) {
	t.Parallel()
	w := serve(t, created, idemhttp.WithFingerprint(idemhttp.FingerprintJSON()))
	text := http.Header{"Content-Type": {"text/plain"}}
	w.send(request{key: "k", body: `{"a":1}`, header: text})
	assert.Equal(t, http.StatusUnprocessableEntity, w.send(request{key: "k", body: `{"a": 1}`, header: text}).StatusCode)
	assert.Equal(t, http.StatusUnprocessableEntity, w.send(request{key: "k", body: `{"a":1}`, header: asJSON}).StatusCode)
	w.send(request{key: "l", body: `{"a":1}`, header: http.Header{"Content-Type": {"application/vnd.api+json"}}})
	assert.True(t, w.send(request{key: "l", body: `{"a": 1}`, header: http.Header{"Content-Type": {"application/merge-patch+json"}}}).replayed())
}

func TestFingerprintFunc(t *testing.T) {
	t.Parallel()
	w := serve(t, echoBody, idemhttp.WithFingerprint(idemhttp.FingerprintFunc("amount", func(r *http.Request, body []byte) ([]byte, error) {
		if len(body) == 0 {
			return nil, errors.New("no body at 10.0.0.7")
		}
		if body[0] == 'p' {
			return nil, &idemhttp.Problem{Status: http.StatusBadRequest, Title: "bad", Detail: "p is not allowed"}
		}
		return body[:1], nil
	})))
	assert.Equal(t, "1a", w.post("k", "1a").body)
	assert.True(t, w.post("k", "1b").replayed())
	assert.Equal(t, http.StatusUnprocessableEntity, w.post("k", "2a").StatusCode)
	p := w.post("l", "").problem(t, http.StatusInternalServerError, idemhttp.TypeMisconfigured)
	assert.NotContains(t, p.Detail, "10.0.0.7")
	assert.Equal(t, http.StatusBadRequest, w.post("l", "p").StatusCode)
	assert.Equal(t, []string{"method", "amount"}, w.mw.Policy().Fingerprint)
	w.ran(1)
}
