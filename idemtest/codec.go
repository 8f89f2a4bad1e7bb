package idemtest

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/internal/equal"
)

// CodecRoundTrip fails the test for each value that does not come back from the codec as it was. Every
// caller but the one that ran fn gets what comes back, so test the codec with values that have every
// field set, and with the zero value.
//
// It compares as a user of the value would: by a type's own method Equal or Cmp, protobuf messages by
// proto.Equal, times by their instant, NaN with NaN, everything else field by field, unexported fields
// too. nil and empty slices and maps differ.
func CodecRoundTrip[T any](t testing.TB, codec idempotent.Codec[T], values ...T) {
	t.Helper()
	for i, want := range values {
		data, err := codec.Encode(want)
		if err != nil {
			t.Errorf("value %d: Encode: %v", i, err)
			continue
		}
		got, err := codec.Decode(data)
		if err != nil {
			t.Errorf("value %d: Decode: %v", i, err)
			continue
		}
		if difference := (equal.Options{Custom: sameMessage}).Difference(&want, &got); difference != "" {
			t.Errorf("value %d came back changed: %s:\n got %#v\nwant %#v", i, difference, got, want)
		}
	}
}

func sameMessage(a, b any) (same, known bool) {
	was, ok := a.(proto.Message)
	if !ok {
		return false, false
	}
	is, ok := b.(proto.Message)
	return ok && proto.Equal(was, is), true
}
