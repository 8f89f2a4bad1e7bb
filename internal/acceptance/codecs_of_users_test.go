package acceptance

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

// docs:proto
type ProtoCodec[T proto.Message] struct{}

func (ProtoCodec[T]) Encode(v T) ([]byte, error) { return proto.Marshal(v) }

func (ProtoCodec[T]) Decode(data []byte) (T, error) {
	var none T
	v := none.ProtoReflect().New().Interface().(T)
	return v, proto.Unmarshal(data, v)
}

// docs:cbor
type CBORCodec[T any] struct{}

func (CBORCodec[T]) Encode(v T) ([]byte, error) { return cbor.Marshal(v) }

func (CBORCodec[T]) Decode(data []byte) (v T, err error) {
	return v, cbor.Unmarshal(data, &v)
}

// docs:end

// The codecs that docs/values.md shows are these.
func TestDocumentedCodecs(t *testing.T) {
	source, err := os.ReadFile("codecs_of_users_test.go")
	require.NoError(t, err)
	page, err := os.ReadFile("../../docs/values.md")
	require.NoError(t, err)
	blocks := strings.Split(string(source), "\n// docs:")
	for _, block := range blocks[1:3] {
		_, code, _ := strings.Cut(block, "\n")
		assert.Contains(t, string(page), strings.TrimSpace(code))
	}

	idemtest.CodecRoundTrip(t, ProtoCodec[*timestamppb.Timestamp]{}, timestamppb.New(time.Unix(1, 2)), &timestamppb.Timestamp{})
	oneof, err := structpb.NewValue(map[string]any{"a": []any{1.5, nil, "b"}})
	require.NoError(t, err)
	idemtest.CodecRoundTrip(t, ProtoCodec[*structpb.Value]{}, oneof)
	idemtest.CodecRoundTrip(t, CBORCodec[receipt]{}, fullReceipt)

	table := newTypeTable(t)
	x := executorIn[*structpb.Value](t, table.rdb, "proto", idempotent.WithCodec(ProtoCodec[*structpb.Value]{}))
	_, err = x.Run(t.Context(), "key", returning(oneof, nil))
	require.NoError(t, err)
	got, err := x.Run(t.Context(), "key", forbidden[*structpb.Value](t))
	require.NoError(t, err)
	assert.True(t, proto.Equal(oneof, got))
}

type checkedCodec struct {
	idempotent.Codec[string]
	typeErr, valueErr error
}

func (c checkedCodec) CheckType() error                { return c.typeErr }
func (c checkedCodec) CheckValue(string, []byte) error { return c.valueErr }

// A codec of the user says what it carries, unless WithUncheckedType keeps it from being asked.
func TestCodecsOfUsersDecide(t *testing.T) {
	rdb := idemtest.NewRedis(t)
	codec := idempotent.WithCodec[string](checkedCodec{idempotent.Raw[string](), errCodec, errCodec})
	_, err := idempotent.New[string](rdb, "a", codec)
	require.ErrorIs(t, err, idempotent.ErrInvalidOption)
	require.ErrorIs(t, err, errCodec)

	x := executorIn[string](t, rdb, "a", codec, idempotent.WithUncheckedType())
	_, err = x.Run(t.Context(), "key", returning("value", nil))
	require.NoError(t, err)

	x = executorIn[string](t, rdb, "b", idempotent.WithCodec[string](checkedCodec{idempotent.Raw[string](), nil, errCodec}))
	v, err := x.Run(t.Context(), "key", returning(secret, nil))
	require.ErrorIs(t, err, idempotent.ErrNotRecorded)
	require.ErrorIs(t, err, errCodec)
	assert.Equal(t, secret, v)
	assert.NotContains(t, err.Error(), secret)
	_, err = x.Run(t.Context(), "key", forbidden[string](t))
	require.ErrorIs(t, err, idempotent.ErrValueNotKept)
}
