package main

import (
	"math"
	"slices"
)

// quantile is the value below which the share q of xs lies, linearly between neighbours. It is NaN
// for no values.
func quantile(xs []float64, q float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(xs))
	at := q * float64(len(sorted)-1)
	below := int(at)
	if below+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}

func median(xs []float64) float64 { return quantile(xs, 0.5) }

// quotients are the ratios of two series, round by round: what disturbed a round disturbed both.
func quotients(these, floors []float64) []float64 {
	ratios := make([]float64, min(len(these), len(floors)))
	for i := range ratios {
		ratios[i] = these[i] / floors[i]
	}
	return ratios
}

func mean(xs []float64) float64 {
	sum := 0.0
	for _, x := range xs {
		sum += x
	}
	return sum / float64(len(xs))
}
