package errreg

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type declined struct{ Reason string }

func (e *declined) Error() string { return "declined: " + e.Reason }

// a trip is what a registry makes of an error that it has stored.
func trip(t *testing.T, r *Registry, err error) (known []error, lost []string) {
	t.Helper()
	note := func(code string) { lost = append(lost, code) }
	data := r.Encode(Stored{Text: err.Error()}, err, note)
	s, known, failed := r.Decode(data, note)
	require.NoError(t, failed)
	require.Equal(t, err.Error(), s.Text)
	return known, lost
}

func TestMatchesComeBackInTheOrderOfDefinitions(t *testing.T) {
	r, twice := New([]Def{Sentinel("eof", io.EOF), Type[*declined]("declined")})
	require.Empty(t, twice)
	known, lost := trip(t, r, fmt.Errorf("%w, %w, %w", &declined{"first"}, io.EOF, &declined{"second"}))
	assert.Equal(t, []error{io.EOF, &declined{"first"}, &declined{"second"}}, known)
	assert.Empty(t, lost)
	assert.True(t, r.Covers(io.EOF))
	assert.False(t, r.Covers(io.ErrUnexpectedEOF))
}

func TestCodesThatAreDefinedTwice(t *testing.T) {
	_, twice := New([]Def{Sentinel("a", io.EOF), Sentinel("b", io.EOF), Sentinel("a", io.ErrNoProgress)})
	assert.Equal(t, []string{"a"}, twice)
}

// What a program registers may fail or panic; that costs the match and nothing else.
func TestAMatchThatIsLost(t *testing.T) {
	panics := Custom("panics", func(error) ([]byte, bool) { return []byte("x"), true }, func([]byte) (error, error) { panic("bad") })
	none := Custom("none", func(error) ([]byte, bool) { return nil, true }, func([]byte) (error, error) { return nil, nil }) //nolint:nilnil // the case
	unsaved := Def{Code: "unsaved", Match: func(error) ([]byte, bool, error) { return nil, true, errors.New("full") }}
	r, _ := New([]Def{panics, none, unsaved, Sentinel("eof", io.EOF)})
	known, lost := trip(t, r, io.EOF)
	assert.Equal(t, []error{io.EOF}, known)
	assert.ElementsMatch(t, []string{"panics", "none", "unsaved"}, lost)

	data := r.Encode(Stored{}, io.EOF, func(string) {})
	older, _ := New(nil)
	_, known, err := older.Decode(data, func(code string) { lost = append(lost, code) })
	require.NoError(t, err)
	assert.Empty(t, known)
	assert.Contains(t, lost, "eof", "not registered any more")
}

func TestManyMatchesAreBounded(t *testing.T) {
	all := make([]error, 3*maxMatches)
	for i := range all {
		all[i] = &declined{fmt.Sprint(i)}
	}
	r, _ := New([]Def{Type[*declined]("declined")})
	known, _ := trip(t, r, errors.Join(all...))
	require.Len(t, known, maxMatches)
	assert.Equal(t, &declined{"0"}, known[0], "errors.As finds the first one")
}

func TestStandardErrorsDescribeAndDoNotCover(t *testing.T) {
	r, _ := New(Standard())
	err := &fs.PathError{Op: "open", Path: "orders.csv", Err: io.EOF}
	known, lost := trip(t, r, err)
	require.Len(t, known, 1)
	assert.EqualError(t, known[0], err.Error())
	assert.Empty(t, lost)
	assert.False(t, r.Covers(err))
}

func TestStacksAreCut(t *testing.T) {
	r, _ := New(nil)
	s, _, err := r.Decode(r.Encode(Stored{Stack: []byte(strings.Repeat("x", 2*maxStack))}, nil, nil), nil)
	require.NoError(t, err)
	assert.Len(t, s.Stack, maxStack)
}

func FuzzDecode(f *testing.F) {
	r, _ := New(append(Standard(), Sentinel("eof", io.EOF), Type[*declined]("declined")))
	lost := func(string) {}
	f.Add(r.Encode(Stored{Text: "text"}, errors.Join(io.EOF, &declined{"x"}), lost))
	f.Fuzz(func(t *testing.T, payload []byte) {
		_, known, err := r.Decode(payload, lost)
		for _, k := range known {
			require.NoError(t, err)
			require.Error(t, k)
		}
	})
}
