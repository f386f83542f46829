// SPDX-License-Identifier: Apache-2.0

package sysinfo

import (
	"math"
	"testing"
	"time"
)

func TestLoads(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	for name, c := range map[string]struct {
		before  [3]float64
		running float64
		passed  time.Duration
		want    [3]float64
	}{
		"nothing passed": {[3]float64{1, 2, 3}, 9, 0, [3]float64{1, 2, 3}},
		"for long":       {[3]float64{}, 2, 24 * time.Hour, [3]float64{2, 2, 2}},
		"for a minute":   {[3]float64{}, 1, time.Minute, [3]float64{0.632, 0.181, 0.0645}},
		"idle":           {[3]float64{4, 4, 4}, 0, 5 * time.Minute, [3]float64{0.027, 1.4715, 2.866}},
	} {
		got := loads{averages: c.before, at: now.Add(-c.passed)}.next(c.running, now)
		for i, v := range got.averages {
			if math.Abs(v-c.want[i]) > 0.001 {
				t.Errorf("%s: %v, want %v", name, got.averages, c.want)
				break
			}
		}
		if got.at != now {
			t.Errorf("%s: as of %v", name, got.at)
		}
	}
	if got := (loads{averages: [3]float64{0, 0.5, 1.25}}).fixed(); got != [3]uint64{0, 32768, 81920} {
		t.Errorf("%v", got)
	}
}
