package acceptance

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// A locked buffer is written by many goroutines.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func lockedLog() (*locked, idempotent.Option) {
	out := &locked{}
	return out, idempotent.WithLogger(slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})))
}

// scriptHash is how EVALSHA names a script of the library.
func scriptHash(t *testing.T, name string) string {
	t.Helper()
	src, err := os.ReadFile(root + "/internal/store/lua/" + name + ".lua")
	require.NoError(t, err)
	return redis.NewScript(string(src)).Hash()
}

// beforeScript does something before the first use of a script.
type beforeScript struct {
	refuse
	hash string
	do   func()
	once sync.Once
}

func (b *beforeScript) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); len(args) > 1 && args[1] == b.hash {
			b.once.Do(b.do)
		}
		return next(ctx, cmd)
	}
}
