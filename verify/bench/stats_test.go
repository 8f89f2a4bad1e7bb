package main

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestQuantile(t *testing.T) {
	xs := []float64{4, 1, 3, 2}
	assert.Equal(t, 2.5, median(xs))
	assert.Equal(t, 1.0, quantile(xs, 0))
	assert.Equal(t, 4.0, quantile(xs, 1))
	assert.InDelta(t, 3.97, quantile(xs, 0.99), 1e-9)
	assert.Equal(t, []float64{4, 1, 3, 2}, xs, "left as it was")
	assert.Equal(t, 7.0, median([]float64{7}))
	assert.True(t, math.IsNaN(median(nil)))
}

func TestQuotientsAreByRound(t *testing.T) {
	assert.Equal(t, []float64{2, 0.5}, quotients([]float64{4, 5}, []float64{2, 10}))
}

func TestMean(t *testing.T) {
	assert.Equal(t, 2.0, mean([]float64{1, 2, 3}))
}
