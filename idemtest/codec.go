package idemtest

import (
	"reflect"
	"testing"

	"github.com/idempotent-go/idempotent"
)

// CodecRoundTrip fails the test for each value that does not come back from the codec as it was,
// by reflect.DeepEqual. Whoever replays a result gets what comes back, so test the codec with
// values that have every field set, and with the zero value.
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
		if !reflect.DeepEqual(got, want) {
			t.Errorf("value %d came back changed:\n got %#v\nwant %#v", i, got, want)
		}
	}
}
