// SPDX-License-Identifier: Apache-2.0

package sysinfo

import (
	"math"
	"time"
)

// loads are the averages of a group, of 1, 5 and 15 minutes.
type loads struct {
	averages [3]float64
	at       time.Time
}

// periods are what loads are averages of.
var periods = [3]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute}

// refresh is how old averages may be, as in lxcfs and the kernel.
const refresh = 5 * time.Second

// next takes the number of running threads for what it has been since the last time.
func (l loads) next(running float64, now time.Time) loads {
	passed := now.Sub(l.at)
	for i, period := range periods {
		rest := math.Exp(-float64(passed) / float64(period))
		l.averages[i] = l.averages[i]*rest + running*(1-rest)
	}
	l.at = now
	return l
}

// fixed are the averages as sysinfo(2) has them, in 65536ths (SI_LOAD_SHIFT).
func (l loads) fixed() (out [3]uint64) {
	for i, v := range l.averages {
		out[i] = uint64(v * (1 << 16))
	}
	return out
}
