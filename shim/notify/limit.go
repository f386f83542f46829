// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"sync"
	"time"
)

// budget limits how often a container can make the shim work for it: the work
// is done in the host's control groups, and a loop of pivot_root calls must not
// take a processor from others. It is a token bucket.
type budget struct {
	burst  float64
	second float64 // tokens each second

	mu     sync.Mutex
	tokens float64
	last   time.Time
}

// take takes a token if there is one.
func (b *budget) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last.IsZero() {
		b.tokens = b.burst
	} else if passed := now.Sub(b.last).Seconds(); passed > 0 {
		b.tokens = min(b.burst, b.tokens+passed*b.second)
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
