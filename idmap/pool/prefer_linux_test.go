// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"path/filepath"
	"runtime"
	"testing"

	"github.com/isolate-shim/isolate/idmap"
)

// TestPreferred: a range that files on disk have is given out again if it is free
// and of this pool, and any other one if not.
func TestPreferred(t *testing.T) {
	t.Parallel()
	const base = 1 << 24
	dir := filepath.Join(t.TempDir(), "ids")
	p := open(t, dir, idmap.Span{First: base, Size: 8 * SlotSize})
	prefer := func(id string, size uint32, first idmap.HostID) *Lease {
		t.Helper()
		l, err := p.AcquirePreferred(t.Context(), Owner{Namespace: "n", ID: id}, size, first)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { runtime.KeepAlive(l) }) // a lease that nobody holds is free
		return l
	}
	want := func(what string, l *Lease, first idmap.HostID) {
		t.Helper()
		if l.First != first {
			t.Errorf("%s: got %d, want %d", what, l.First, first)
		}
	}
	a := prefer("a", SlotSize, base+3*SlotSize)
	want("free", a, base+3*SlotSize)
	want("taken", prefer("b", SlotSize, base+3*SlotSize), base)
	want("the search goes on from where it was", prefer("c", SlotSize, 0), base+SlotSize)
	want("half taken", prefer("d", 2*SlotSize, base+2*SlotSize), base+4*SlotSize)
	want("not aligned", prefer("e", SlotSize, base+1), base+6*SlotSize)
	want("of no pool", prefer("f", SlotSize, 1<<20), base+7*SlotSize)
	if err := a.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("given back", prefer("a", SlotSize, base+3*SlotSize), base+3*SlotSize)
	if _, err := p.AcquirePreferred(t.Context(), Owner{}, 2*SlotSize, base+7*SlotSize); err == nil {
		t.Error("got a range that ends outside of the pool")
	}
}
