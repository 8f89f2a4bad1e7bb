package idemhttp_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// This package is built of what the library is built of, and of four modules that it alone has.
func TestDependencies(t *testing.T) {
	t.Parallel()
	list := func(pkg string) []string {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg).Output()
		require.NoError(t, err)
		return strings.Fields(string(out))
	}
	library := list("..")
	own := []string{
		"github.com/idempotent-go/idempotent/", "github.com/dunglas/httpsfv", "github.com/go-json-experiment/json",
		"github.com/google/uuid", "github.com/cenkalti/backoff/v5",
	}
	for _, dep := range list(".") {
		host, _, _ := strings.Cut(dep, "/")
		if !strings.Contains(host, ".") || slices.Contains(library, dep) {
			continue
		}
		assert.True(t, slices.ContainsFunc(own, func(prefix string) bool { return strings.HasPrefix(dep, prefix) }), "%s is new", dep)
		assert.NotContains(t, dep, "/internal/suite")
		for _, name := range own[1:] {
			assert.False(t, slices.ContainsFunc(library, func(l string) bool { return strings.HasPrefix(l, name) }), "%s is for this package alone", name)
		}
	}
}
