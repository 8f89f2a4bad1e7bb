package acceptance

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/idempotent-go/idempotent"

// dependencies lists what a package, without its tests, is built of.
func dependencies(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg).Output()
	if failed, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Output returns it bare
		require.NoError(t, err, "%s", failed.Stderr)
	}
	require.NoError(t, err)
	return strings.Fields(string(out))
}

// Somebody who imports this library gets go-redis, msgpack and otter and nothing else, neither a test
// framework nor an HTTP server nor a tracer. otter is there for WithReplayCache: it needs nothing but
// the standard library, and starts nothing where there is no cache.
func TestDependenciesOfTheLibrary(t *testing.T) {
	forbidden := []string{
		"testing", "net/http", "go.opentelemetry.io",
		"github.com/alicebob/miniredis", "github.com/stretchr/testify", "go.uber.org/goleak",
		module + "/idemtest", module + "/idemhttp", module + "/internal/redistest", module + "/internal/behaviour",
	}
	// github.com/x/y and what its modules need of others.
	allowed := []string{
		module, "github.com/redis/go-redis/v9", "github.com/vmihailenco/msgpack/v5", "github.com/vmihailenco/tagparser/v2", "github.com/maypok86/otter/v2",
		"github.com/cespare/xxhash/v2", "go.uber.org/atomic", "golang.org/x/sys",
	}
	deps := dependencies(t, module)
	require.Contains(t, deps, "github.com/redis/go-redis/v9", "this is the right list")
	require.Contains(t, deps, "github.com/vmihailenco/msgpack/v5")
	for _, dep := range deps {
		for _, bad := range forbidden {
			assert.False(t, within(dep, bad), "the library depends on %s", dep)
		}
		if host, _, _ := strings.Cut(dep, "/"); !strings.Contains(host, ".") || host == "vendor" {
			continue // the standard library
		}
		known := false
		for _, good := range allowed {
			known = known || within(dep, good)
		}
		assert.True(t, known, "the library depends on %s, which is new", dep)
	}
}

// Packages for users import the root, never the other way round.
func TestDependenciesOfIdemtest(t *testing.T) {
	deps := dependencies(t, module+"/idemtest")
	assert.Contains(t, deps, module)
	assert.NotContains(t, deps, module+"/idemhttp")
	for _, dep := range deps {
		assert.False(t, within(dep, "github.com/stretchr/testify"), "idemtest depends on %s", dep)
	}
}

func within(pkg, tree string) bool { return pkg == tree || strings.HasPrefix(pkg, tree+"/") }
