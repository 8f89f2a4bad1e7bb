package acceptance

import (
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/idempotent-go/idempotent"
)

// fate is what happens to a value under both codecs, as docs/values.md says it.
func fate[T any](v T) [2]string {
	return [2]string{fateUnder(idempotent.Msgpack[T](), v), fateUnder(idempotent.JSON[T](), v)}
}

func fateUnder[T any](codec idempotent.Codec[T], v T) string {
	if codec.(idempotent.TypeChecker).CheckType() != nil {
		return "refused"
	}
	data, err := codec.Encode(v)
	if err != nil || codec.(idempotent.ValueChecker[T]).CheckValue(v, data) != nil {
		return unkept
	}
	return kept
}

// The table of docs/values.md is true.
func TestTableOfKinds(t *testing.T) {
	type key struct{ A int }
	type embedded struct{ A string }
	utc := time.Date(2026, 12, 31, 23, 30, 0, 0, time.UTC)
	fates := map[string][2]string{
		"bool, numbers, string, bytes, slices, arrays, maps with string keys, structs, pointers": fate(&fullReceipt),
		"NaN and infinity":           fate([]float64{math.NaN(), math.Inf(1)}),
		"a string that is not UTF-8": fate("\xff"),
		"a map with struct keys":     fate(map[key]int{{1}: 1}),
		"time.Time in UTC":           fate(utc),
		"time.Time in another zone":  fate(utc.In(time.FixedZone("", 3600))),
		"time.Time in an interface":  fate(any(utc)),
		"an int in an interface":     fate(any(1)),
		"a struct in an interface":   fate(any(key{1})),
		"string, float64, bool, []any, map[string]any in an interface":           fate(any(map[string]any{"a": []any{"b", 1.5, true}})),
		"a type with MarshalText and UnmarshalText":                              fate(textPair{"a"}),
		"a type with MarshalJSON and UnmarshalJSON alone, and unexported fields": fate(jsonOnly{1}),
		"an unexported field": fate(struct{ a int }{1}),
		"a field of an interface with methods, error for instance": fate(struct{ Err error }{errCodec}),
		"a func, a channel, a complex number":                      fate(struct{ F func() }{}),
		"a protobuf message":                                       fate(timestamppb.Now()),
		"a pointer to a nil pointer":                               fate(new((*int)(nil))),
		"a nil embedded pointer": fate(struct {
			*Embedded
			B int
		}{}),
		"an embedded time.Time and other fields": fate(struct {
			time.Time
			A embedded
		}{}),
	}
	page, err := os.ReadFile("../../docs/values.md")
	require.NoError(t, err)
	_, table, _ := strings.Cut(string(page), "|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		require.Len(t, cells, 5, line)
		name := strings.TrimSpace(cells[1])
		want, known := fates[name]
		require.True(t, known, name)
		rows++
		for i := range want {
			said, _, _ := strings.Cut(strings.TrimSpace(cells[2+i]), ",")
			assert.Equal(t, want[i], said, "%s, column %d", name, i+1)
		}
	}
	assert.Equal(t, len(fates), rows)
}

// Embedded is a struct that others embed by a pointer.
type Embedded struct{ A string }
