// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"slices"
)

// quartiles are of a sample of numbers.
type quartiles struct{ low, median, high float64 }

// quartilesOf interpolates between neighbours, like the R-7 method of most
// statistics programs. The quartiles of nothing are not a number.
func quartilesOf(sample []float64) quartiles {
	sorted := slices.Sorted(slices.Values(sample))
	at := func(fraction float64) float64 {
		if len(sorted) == 0 {
			return math.NaN()
		}
		position := fraction * float64(len(sorted)-1)
		i := int(position)
		next := min(i+1, len(sorted)-1)
		return sorted[i] + (sorted[next]-sorted[i])*(position-float64(i))
	}
	return quartiles{at(0.25), at(0.5), at(0.75)}
}

// ratios are of the values of each pair.
func ratios(over, under []float64) quartiles {
	all := make([]float64, min(len(over), len(under)))
	for i := range all {
		all[i] = over[i] / under[i]
	}
	return quartilesOf(all)
}

// String is the median with the interquartile range.
func (q quartiles) String() string { return fmt.Sprintf("%.2f [%.2f-%.2f]", q.median, q.low, q.high) }
