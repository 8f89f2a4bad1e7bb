package idempotent

import (
	"context"

	"github.com/idempotent-go/idempotent/internal/errtree"
	"github.com/idempotent-go/idempotent/internal/record"
	"github.com/idempotent-go/idempotent/internal/seam"
)

func init() {
	seam.CheckRegistry = func(registry any) error { return registry.(*ErrorRegistry).err }
	seam.EncodeError = func(registry any, err error, lost func(string)) []byte {
		return registry.(*ErrorRegistry).encode(err, lost)
	}
	seam.DecodeError = func(registry any, rec *record.Record, lost func(string)) error {
		return registry.(*ErrorRegistry).decode(rec, lost)
	}
	seam.CodecID = codecOf
	seam.IsUnknown = func(err error) bool {
		marked := false
		errtree.Walk(err, func(node error) bool {
			_, marked = node.(*unknownError) //nolint:errorlint // one node of the tree that Walk visits
			return !marked
		})
		return marked || errtree.Contains(err, notOutcomes...)
	}
	seam.WithRunInfo = func(ctx context.Context, namespace, key string) context.Context {
		x := &runContext{info: RunInfo{Namespace: namespace, Key: key, Attempt: 1}}
		x.outer, _ = ctx.Value(runContextKey{}).(*runContext)
		return context.WithValue(ctx, runContextKey{}, x)
	}
}
