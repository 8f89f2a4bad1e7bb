package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The measures run this binary as another process.
func TestMain(m *testing.M) {
	if addr := os.Getenv(childVariable); addr != "" {
		if err := childMain(addr); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// Each step yields figures, however small; whether they are good is not for a test to say.
func TestEveryMeasureYieldsFigures(t *testing.T) {
	s := settings{rounds: 1, slice: time.Millisecond, wakes: 2, crowd: 10, window: 100 * time.Millisecond, records: 200}
	r, err := measure(s, io.Discard)
	require.NoError(t, err)
	for _, row := range r.rows {
		assert.NotEmpty(t, row.measure)
		assert.NotEmpty(t, row.this+row.thisCmds, row.measure)
		assert.NotEmpty(t, row.target, row.measure)
		assert.NotEqual(t, noTarget, row.met, row.measure)
		assert.NotContains(t, strings.Join(row.cells(), " "), "NaN", row.measure)
	}
	for _, name := range sectionOrder {
		require.Contains(t, r.sections, name)
		section := r.sections[name]
		assert.NotEmpty(t, section.lines, name)
		for _, line := range section.lines {
			assert.Len(t, line, len(section.head), name)
			assert.NotContains(t, strings.Join(line, " "), "NaN", name)
		}
	}

	dir := t.TempDir()
	document := filepath.Join(dir, "performance.md")
	require.NoError(t, os.WriteFile(document, []byte("<!-- bench:targets -->\n<!-- /bench:targets -->\n"), 0o644))
	require.NoError(t, r.writeCharts(filepath.Join(dir, "img")))
	require.NoError(t, r.writeDocument(document))
	written, err := os.ReadFile(document)
	require.NoError(t, err)
	assert.Contains(t, string(written), "| replay, serial |")
	charts, err := filepath.Glob(filepath.Join(dir, "img", "*.svg"))
	require.NoError(t, err)
	assert.Len(t, charts, 4)
	var printed strings.Builder
	r.print(&printed)
	assert.Contains(t, printed.String(), "first run, serial")
}

func TestRewrite(t *testing.T) {
	document := "before\n<!-- bench:a -->\nold\n<!-- /bench:a -->\nafter\n<!-- bench:b -->\nkept\n<!-- /bench:b -->\n"
	got, err := rewrite(document, map[string]string{"a": "new\n", "c": "nowhere"})
	require.NoError(t, err)
	assert.Equal(t, "before\n<!-- bench:a -->\n\nnew\n\n<!-- /bench:a -->\nafter\n<!-- bench:b -->\nkept\n<!-- /bench:b -->\n", got)
	again, err := rewrite(got, map[string]string{"a": "new\n"})
	require.NoError(t, err)
	assert.Equal(t, got, again, "written twice is written once")
}

func TestRewriteNeedsAnEnd(t *testing.T) {
	_, err := rewrite("<!-- bench:a -->\nold\n", map[string]string{"a": "new"})
	require.ErrorContains(t, err, "/bench:a")
}

func TestFlagsOutOfRange(t *testing.T) {
	err := run([]string{"-rounds", "0"}, io.Discard, io.Discard)
	require.ErrorContains(t, err, "-rounds 0")
}
