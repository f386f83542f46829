// SPDX-License-Identifier: Apache-2.0

package task

import (
	"runtime"
	"testing"
)

// TestAllocations bounds the allocations of a Create and Delete, without those of
// upstream: some 1,200, with a small config.json. It is not parallel, since everybody's
// are counted.
func TestAllocations(t *testing.T) {
	w := newWorld(t)
	w.made("first")
	w.deleted("first")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w.made("a")
	w.deleted("a")
	runtime.ReadMemStats(&after)
	n, bytes := after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc
	t.Logf("%d allocations, %d bytes", n, bytes)
	if n > 3000 || bytes > 400<<10 {
		t.Errorf("%d allocations, %d bytes", n, bytes)
	}
}
