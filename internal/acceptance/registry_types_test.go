package acceptance

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

type errorWithError struct {
	Code  int
	Cause error
}

func (e *errorWithError) Error() string { return "with error" }

type errorWithErrors struct{ Causes []error }

func (e errorWithErrors) Error() string { return "with errors" }

type errorWithErrorMap struct{ Causes map[string]error }

func (e errorWithErrorMap) Error() string { return "with errors" }

type errorWithDeepError struct{ Detail struct{ Cause error } }

func (e errorWithDeepError) Error() string { return "with deep error" }

type errorWithFunc struct{ Do func() }

func (e errorWithFunc) Error() string { return "with func" }

type errorWithChan struct{ C chan int }

func (e errorWithChan) Error() string { return "with chan" }

type errorWithStringer struct{ S fmt.Stringer }

func (e errorWithStringer) Error() string { return "with interface" }

type funcError func()

func (e funcError) Error() string { return "func" }

func TestRegistryRefusesWhatItCannotRestore(t *testing.T) {
	tests := map[string]struct {
		defs  []idempotent.ErrorDef
		texts []string
	}{
		"empty code":               {[]idempotent.ErrorDef{idempotent.Sentinel("", errDeclined)}, []string{"code", `""`}},
		"empty code of a type":     {[]idempotent.ErrorDef{idempotent.ErrorType[*codeError]("")}, []string{"code", `""`}},
		"no definition":            {[]idempotent.ErrorDef{{}}, []string{"code", `""`}},
		"code used twice":          {[]idempotent.ErrorDef{idempotent.Sentinel("dup", errDeclined), idempotent.Sentinel("dup", errRefund)}, []string{`"dup"`, "twice"}},
		"code of a type and value": {[]idempotent.ErrorDef{idempotent.Sentinel("dup", errDeclined), idempotent.ErrorType[*codeError]("dup")}, []string{`"dup"`, "twice"}},
		"nil sentinel":             {[]idempotent.ErrorDef{idempotent.Sentinel("missing", nil)}, []string{"Sentinel", "missing", "nil"}},
		"uncomparable sentinel":    {[]idempotent.ErrorDef{idempotent.Sentinel("parts", uncomparableError{})}, []string{"Sentinel", "parts", "uncomparableError", "compared"}},
		"interface type":           {[]idempotent.ErrorDef{idempotent.ErrorType[error]("any")}, []string{"ErrorType", "any", "interface"}},
		"interface field":          {[]idempotent.ErrorDef{idempotent.ErrorType[*errorWithError]("with")}, []string{"ErrorType", "with", "errorWithError", "Cause", "error"}},
		"Stringer field":           {[]idempotent.ErrorDef{idempotent.ErrorType[errorWithStringer]("with")}, []string{"ErrorType", "errorWithStringer", "S", "fmt.Stringer"}},
		"func field":               {[]idempotent.ErrorDef{idempotent.ErrorType[errorWithFunc]("with")}, []string{"ErrorType", "errorWithFunc", "Do", "func()"}},
		"chan field":               {[]idempotent.ErrorDef{idempotent.ErrorType[errorWithChan]("with")}, []string{"ErrorType", "errorWithChan", "chan int"}},
		"list of errors":           {[]idempotent.ErrorDef{idempotent.ErrorType[errorWithErrors]("with")}, []string{"ErrorType", "errorWithErrors", "Causes"}},
		"map of errors":            {[]idempotent.ErrorDef{idempotent.ErrorType[errorWithErrorMap]("with")}, []string{"ErrorType", "errorWithErrorMap", "Causes"}},
		"error in a nested struct": {[]idempotent.ErrorDef{idempotent.ErrorType[errorWithDeepError]("with")}, []string{"ErrorType", "errorWithDeepError", "Cause"}},
		"func type":                {[]idempotent.ErrorDef{idempotent.ErrorType[funcError]("func")}, []string{"ErrorType", "funcError"}},
		"several": {[]idempotent.ErrorDef{idempotent.Sentinel("missing", nil), idempotent.Sentinel("", errDeclined), idempotent.ErrorType[error]("any")},
			[]string{"missing", `""`, "interface"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e, err := idempotent.New[string](idemtest.NewRedis(t), "default", idempotent.WithErrors(idempotent.NewErrorRegistry(test.defs...)))
			require.ErrorIs(t, err, idempotent.ErrInvalidOption)
			assert.Nil(t, e)
			assert.ErrorContains(t, err, "allowed: ")
			for _, text := range test.texts {
				assert.ErrorContains(t, err, text)
			}
		})
	}
}

type taggedError struct {
	Code  int
	Cause error    `json:"-"`
	Any   any      // json restores it as it likes
	inner []func() //nolint:unused // not exported, so it does not travel
}

func (e *taggedError) Error() string { return "tagged" }

type ownJSONError struct{ Cause error }

func (e *ownJSONError) Error() string { return "own" }

func (e *ownJSONError) MarshalJSON() ([]byte, error) { return json.Marshal(e.Cause.Error()) }

func (e *ownJSONError) UnmarshalJSON(b []byte) error {
	var text string
	err := json.Unmarshal(b, &text)
	e.Cause = errors.New(text)
	return err
}

func TestRegistryAcceptsWhatJSONRestores(t *testing.T) {
	registry := idempotent.NewErrorRegistry(
		idempotent.ErrorType[*taggedError]("tagged"),
		idempotent.ErrorType[*ownJSONError]("own"),
		idempotent.ErrorType[fieldError]("field"),
		idempotent.Sentinel("typed nil", (*codeError)(nil)),
	)
	_, again := firstAndAgain(t, registry, registry, errors.Join(&taggedError{Code: 1, Cause: errDeclined, Any: "a"}, &ownJSONError{errRefund}))
	tagged, ok := errors.AsType[*taggedError](again)
	require.True(t, ok)
	assert.Equal(t, &taggedError{Code: 1, Any: "a"}, tagged)
	own, ok := errors.AsType[*ownJSONError](again)
	require.True(t, ok)
	assert.EqualError(t, own.Cause, "refund failed")
}

func TestRegistryIsSharedByExecutors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		defs := []idempotent.ErrorDef{idempotent.Sentinel("declined", errDeclined)}
		registry := idempotent.NewErrorRegistry(defs...)
		defs[0] = idempotent.Sentinel("declined", errRefund) // the registry keeps its own
		_, err := executorOn[string](t, rdb, idempotent.WithErrors(registry)).Run(t.Context(), "key", returning("", errDeclined))
		require.ErrorIs(t, err, errDeclined)
		_, err = executorOn[int](t, rdb, idempotent.WithErrors(registry)).Run(t.Context(), "key", forbidden[int](t))
		assert.ErrorIs(t, err, errDeclined)
		assert.NotErrorIs(t, err, errRefund)
	})
}
