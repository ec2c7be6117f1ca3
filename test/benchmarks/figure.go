package main

import (
	"math"
	"slices"
)

// figure is what repeated measurements of one thing came to.
type figure struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	// Samples are the single measurements, in their order.
	Samples []float64 `json:"samples,omitempty"`
}

func figureOf(samples []float64) figure {
	return figure{Median: quantile(samples, 0.5), Min: slices.Min(samples), Max: slices.Max(samples), Samples: samples}
}

// quantile is the value below which the share q of the samples lies, between neighbours in proportion.
func quantile(samples []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	at := q * float64(len(sorted)-1)
	low := int(math.Floor(at))
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}
