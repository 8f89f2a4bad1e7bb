package webhook_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A user of the package gets go-redis, msgpack and otter and nothing else; a user of webhooktest, no test framework.
func TestDependencies(t *testing.T) {
	for _, pkg := range []string{".", "./webhooktest"} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg).Output()
		require.NoError(t, err)
		require.Contains(t, string(out), "github.com/redis/go-redis/v9")
		for dep := range strings.Lines(string(out)) {
			host, _, _ := strings.Cut(dep, "/")
			if !strings.Contains(host, ".") { // the standard library
				continue
			}
			known := false
			for _, tree := range []string{
				"github.com/idempotent-go/idempotent", "github.com/redis/go-redis/v9", "github.com/vmihailenco/", "github.com/maypok86/otter/v2",
				"github.com/cespare/xxhash/v2", "go.uber.org/atomic", "golang.org/x/sys",
			} {
				known = known || strings.HasPrefix(dep, tree)
			}
			assert.True(t, known, "%s depends on %s", pkg, dep)
			assert.NotContains(t, dep, "/idemtest")
		}
	}
}
