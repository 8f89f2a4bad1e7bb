package idemhttp

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The table of endings in the documentation is that in the code.
func TestDocumentationHasTheTableOfEndings(t *testing.T) {
	var want strings.Builder
	want.WriteString("| how the handler ended | verdict | this client | the others |\n|---|---|---|---|\n")
	for _, row := range slices.Concat(certainEndings, defaultEndings) {
		fmt.Fprintf(&want, "| %s | %s | %s | %s |\n", row.ending, row.verdict, row.client, row.later)
	}
	doc, err := os.ReadFile("../docs/http.md")
	require.NoError(t, err)
	assert.Contains(t, string(doc), want.String(), "docs/http.md must have:\n%s", want.String())
}

func TestVerdictNames(t *testing.T) {
	assert.Equal(t, []string{"invalid", "record", "free", "unknown", "invalid"}, []string{Verdict(0).String(), Record.String(), Free.String(), Unknown.String(), Verdict(4).String()})
}

// Every status has one verdict, and no broken ending is recorded.
func TestVerdicts(t *testing.T) {
	c := defaultRoute()
	for status := 200; status <= 999; status++ {
		for _, flushed := range []bool{false, true} {
			for _, deadline := range []bool{false, true} {
				e := Ending{Status: status, Flushed: flushed, Deadline: deadline, wrote: true}
				want := Record
				switch {
				case status == 408 || status == 499 || status == 502 || status == 504 || 520 <= status && status <= 527 || status == 598 || status == 599:
					want = Unknown
				case status == 503 && (flushed || deadline), (status == 425 || status == 429) && flushed:
					want = Unknown
				case status == 503 || status == 425 || status == 429:
					want = Free
				}
				assert.Equal(t, want, c.judge(&e), "%+v", e)
				for _, broken := range []Ending{{aborted: true}, {short: true}, {bypassed: true}, {unknown: true}, {unknown: true, harmless: true}, {stopped: true}} {
					broken.Status, broken.Flushed, broken.Deadline = status, flushed, deadline
					assert.Equal(t, Unknown, c.judge(&broken), "%+v", broken)
				}
				e.stopped = true
				if status < 400 {
					assert.Equal(t, Record, c.judge(&e), "what was done was done: %+v", e)
				} else {
					assert.Equal(t, Unknown, c.judge(&e), "%+v", e)
				}
				e.harmless = true
				assert.Equal(t, Free, c.judge(&e), "%+v", e)
			}
		}
	}
}
