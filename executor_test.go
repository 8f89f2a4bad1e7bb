package idempotent_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

func TestFirstCallRunsRetryReplays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := idempotent.New[string](idemtest.NewRedis(t))
		require.NoError(t, err)
		defer e.Close()
		runs := 0
		for range 2 {
			v, err := e.Run(t.Context(), "order-1", func(context.Context) (string, error) {
				runs++
				return "charged", nil
			})
			require.NoError(t, err)
			require.Equal(t, "charged", v)
		}
		require.Equal(t, 1, runs)
	})
}
