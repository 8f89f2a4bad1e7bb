package main

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTableMarkdown(t *testing.T) {
	tab := table{head: []string{"a", "b"}}
	tab.add("1", "**no**")
	assert.Equal(t, "| a | b |\n|---|---|\n| 1 | **no** |\n", tab.markdown())
	assert.Equal(t, "a  b\n1  no\n", tab.text())
}

func TestRowHasACellForEachHead(t *testing.T) {
	assert.Len(t, row{}.cells(), len(targetHead))
}

func TestVerdicts(t *testing.T) {
	assert.Equal(t, "yes", judge(true).String())
	assert.Equal(t, "**no**", judge(false).String())
	assert.Equal(t, "–", noTarget.String())
}

func TestTexts(t *testing.T) {
	assert.Equal(t, "950 ns", span(950))
	assert.Equal(t, "61.5 µs", span(61_540))
	assert.Equal(t, "1.50 ms", span(1.5e6))
	assert.Equal(t, "2.00 s", span(2e9))
	assert.Equal(t, "-1.50 ms", span(-1.5e6))
	assert.Equal(t, "50.0 k/s", rate(20_000))
	assert.Equal(t, "2.00 M/s", rate(500))
	assert.Equal(t, "512 B", bytesText(512))
	assert.Equal(t, "64.0 KiB", bytesText(64<<10))
	assert.Equal(t, "1.50 MiB", bytesText(1.5*(1<<20)))
	assert.Equal(t, "1", grouped(1))
	assert.Equal(t, "999", grouped(999))
	assert.Equal(t, "10,000", grouped(10_000))
	assert.Equal(t, "1,234,567", grouped(1_234_567))
	assert.Equal(t, "1.25–1.75", quartiles([]float64{1, 1.5, 2}))
	assert.Equal(t, "–", significant(math.NaN()))
}
