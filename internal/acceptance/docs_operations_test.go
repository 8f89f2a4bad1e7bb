package acceptance

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
)

// The table of states has each state, with the meaning that the tools show.
func TestDocsStates(t *testing.T) {
	var want [][]string
	for s := idempotent.StateAbsent; s.Meaning() != ""; s++ {
		want = append(want, []string{s.String(), s.Meaning()})
	}
	require.Len(t, want, len(inspected)+1)
	_, section, found := strings.Cut(readText(t, "docs/operations.md"), "\n## States\n")
	require.True(t, found)
	assert.ElementsMatch(t, want, tableRows(section))
}
