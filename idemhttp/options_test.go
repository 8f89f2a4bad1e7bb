package idemhttp_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemhttp"
	"github.com/idempotent-go/idempotent/idemtest"
)

func TestInvalidOptions(t *testing.T) {
	for text, option := range map[string]idemhttp.Option{
		"New: option is nil":                             nil,
		"WithMethods: list is empty":                     idemhttp.WithMethods(),
		`WithMethods: method is "post"`:                  idemhttp.WithMethods("POST", "post"),
		`WithMethods: method is "P OST"`:                 idemhttp.WithMethods("P OST"),
		"WithKeyFormat: function is nil":                 idemhttp.WithKeyFormat(nil),
		"scope: function is nil":                         idemhttp.WithScope(nil),
		"WithKey: function is nil":                       idemhttp.WithKey(nil),
		"WithKeyLimit: limit is 0":                       idemhttp.WithKeyLimit(0),
		"WithRoute: function is nil":                     idemhttp.WithRoute(nil),
		"WithRedact: function is nil":                    idemhttp.WithRedact(nil),
		"WithCommitWait: wait is 0s":                     idemhttp.WithCommitWait(0),
		"WithShouldRecord: function is nil":              idemhttp.WithShouldRecord(nil),
		"WithProblemRenderer: function is nil":           idemhttp.WithProblemRenderer(nil),
		"FingerprintParts: parts is 0":                   idemhttp.WithFingerprint(idemhttp.FingerprintParts(0)),
		"FingerprintParts: parts is 128":                 idemhttp.WithFingerprint(idemhttp.FingerprintParts(128)),
		`FingerprintJSON: pointer is "sent_at"`:          idemhttp.WithFingerprint(idemhttp.FingerprintJSON("/a", "sent_at")),
		"FingerprintFunc: function is nil":               idemhttp.WithFingerprint(idemhttp.FingerprintFunc("x", nil)),
		"WithFingerprint: fingerprint is the zero value": idemhttp.WithFingerprint(idemhttp.Fingerprint{}),
		`WithUnrecordedHeaders: name is "X Y"`:           idemhttp.WithUnrecordedHeaders("X Y"),
		"WithRequestLimit: limit is -1":                  idemhttp.WithRequestLimit(-1),
		"WithResponseLimit: limit is -1":                 idemhttp.WithResponseLimit(-1),
		`WithDocumentation: url is ""`:                   idemhttp.WithDocumentation(""),
		`WithDocumentation: url is "docs"`:               idemhttp.WithDocumentation("docs"),
		`WithDocumentation: url is "http://x/>; rel=y"`:  idemhttp.WithDocumentation("http://x/>; rel=y"),
		"WithWaitTimeout: timeout is 0s":                 idemhttp.WithWaitTimeout(0),
		"WithTTL: ttl is 0s":                             idemhttp.WithTTL(0),
		"WithLease: lease is 1ms":                        idemhttp.WithLease(time.Millisecond),
		"WithInterrupted: policy is 9":                   idemhttp.WithInterrupted(9),
		"WithObserver: observer is nil":                  idemhttp.WithObserver(nil),
		"WithObserver: observer is nil; allowed":         idemhttp.WithObserver(idempotent.ObserverFunc(nil)),
		"WithLogger: logger is nil":                      idemhttp.WithLogger(nil),
	} {
		mw, err := idemhttp.New(idemtest.NewRedis(t), "http", callers, option)
		require.ErrorIs(t, err, idempotent.ErrInvalidOption, text)
		assert.Nil(t, mw)
		assert.ErrorContains(t, err, text)
		assert.ErrorContains(t, err, "allowed: ")
	}
	_, err := idemhttp.New(nil, "http", callers)
	require.ErrorIs(t, err, idempotent.ErrInvalidOption)
	_, err = idemhttp.New(idemtest.NewRedis(t), "http", callers, idemhttp.WithFailOpen(), idemhttp.WithObserver(nil))
	assert.ErrorContains(t, err, "WithObserver: observer is nil")
	_, err = idemhttp.New(idemtest.NewRedis(t), "http", callers, idemhttp.WithTTL(0), idemhttp.WithMethods())
	assert.ErrorContains(t, err, "WithTTL")
	assert.ErrorContains(t, err, "WithMethods", "all of them are named")
}

// The list of a caller may change after New.
func TestMethodsAreCopied(t *testing.T) {
	t.Parallel()
	methods := []string{"POST"}
	mw := middleware(t, idemtest.NewRedis(t), idemhttp.WithMethods(methods...))
	methods[0] = "GET"
	assert.Equal(t, []string{"POST"}, mw.Policy().Methods)
}

func TestTTL(t *testing.T) {
	t.Parallel()
	w := serve(t, created, idemhttp.WithTTL(time.Hour))
	w.post("k", "")
	require.Len(t, w.stored(), 1)
	assert.Contains(t, w.stored()[0], "idempotent:http:")
	left, err := w.redis.TTL(t.Context(), w.stored()[0]).Result()
	require.NoError(t, err)
	assert.InDelta(t, time.Hour, left, float64(time.Minute))
}
