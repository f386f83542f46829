// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"testing"
)

func TestQuartilesOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		sample []float64
		want   quartiles
	}{
		{"one", []float64{7}, quartiles{7, 7, 7}},
		{"two", []float64{3, 1}, quartiles{1.5, 2, 2.5}},
		{"odd, unsorted", []float64{5, 1, 4, 2, 3}, quartiles{2, 3, 4}},
		{"even", []float64{1, 2, 3, 4}, quartiles{1.75, 2.5, 3.25}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := quartilesOf(test.sample); got != test.want {
				t.Errorf("quartilesOf(%v) = %v, want %v", test.sample, got, test.want)
			}
		})
	}
	if q := quartilesOf(nil); !math.IsNaN(q.median) {
		t.Errorf("median of nothing is %v", q.median)
	}
}

func TestRatiosArePaired(t *testing.T) {
	t.Parallel()
	// The ratio of the medians would be 1.
	if got := ratios([]float64{2, 4, 6}, []float64{1, 4, 12}); got.median != 1 || got.low != 0.75 || got.high != 1.5 {
		t.Errorf("ratios = %v", got)
	}
}
