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
	p := open(t, dir, idmap.Span{First: base, Size: 8 * slotSize})
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
	a := prefer("a", slotSize, base+3*slotSize)
	want("free", a, base+3*slotSize)
	want("taken", prefer("b", slotSize, base+3*slotSize), base)
	want("the search goes on from where it was", prefer("c", slotSize, 0), base+slotSize)
	want("half taken", prefer("d", 2*slotSize, base+2*slotSize), base+4*slotSize)
	want("not aligned", prefer("e", slotSize, base+1), base+6*slotSize)
	want("of no pool", prefer("f", slotSize, 1<<20), base+7*slotSize)
	if err := a.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("given back", prefer("a", slotSize, base+3*slotSize), base+3*slotSize)
	if _, err := p.AcquirePreferred(t.Context(), Owner{}, 2*slotSize, base+7*slotSize); err == nil {
		t.Error("got a range that ends outside of the pool")
	}
}
