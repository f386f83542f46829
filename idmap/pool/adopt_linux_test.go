// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
)

// child starts a process that ends with this one.
func child(t *testing.T, flags uintptr) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL, Cloneflags: flags}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	return cmd
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// TestAdoptedIDsAreExclusive: ids that a caller has mapped by itself are no other
// container's, be it of the pool or of another caller.
func TestAdoptedIDsAreExclusive(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir(), idmap.Span{First: 1 << 24, Size: slotSize})
	own := acquire(t, p, Owner{ID: "own"}, slotSize)
	adopt := func(id string, m idmap.Mapping, shared bool) (*Lease, error) {
		return p.Adopt(t.Context(), m, Owner{Namespace: "test", ID: id}, "", shared)
	}
	a, err := adopt("a", idmap.Contiguous(100000, 65536), false)
	if err != nil {
		t.Fatal(err)
	}
	// Not aligned, as distributions give ids to users: the same slot, other ids.
	if _, err := adopt("neighbour", idmap.Contiguous(165536, 65536), false); err != nil {
		t.Error(err)
	}
	if list, err := p.Adopted(t.Context()); err != nil || len(list) != 2 || list[0].First != 100000 || list[0].Owner.ID != "a" || list[1].First != 165536 {
		t.Errorf("listed are %+v, %v", list, err)
	}
	groups := idmap.Contiguous(300000, 1000)
	groups.GIDs = []idmap.Range{{Container: 0, Host: 110000, Size: 1}, {Container: 1, Host: 300000, Size: 10}}
	for name, m := range map[string]idmap.Mapping{
		"the same":    idmap.Contiguous(100000, 65536),
		"a part":      idmap.Contiguous(99999, 2),
		"groups only": groups,
	} {
		_, err := adopt("b", m, false)
		if !errors.Is(err, ErrOverlap) || !strings.Contains(fmt.Sprint(err), `container "a" in namespace "test"`) || !strings.Contains(fmt.Sprint(err), adoptSetting) {
			t.Errorf("%s: %v", name, err)
		}
		l, err := adopt("b", m, true)
		if err != nil {
			t.Errorf("%s, shared: %v", name, err)
			continue
		}
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, shared := range []bool{false, true} {
		if _, err := adopt("b", own.Mapping(), shared); !errors.Is(err, ErrOverlap) || !strings.Contains(fmt.Sprint(err), `container "own"`) {
			t.Errorf("ids that the pool has given out: %v", err)
		}
	}
	if err := a.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := adopt("b", idmap.Contiguous(100000, 65536), false); err != nil {
		t.Errorf("given back: %v", err)
	}
}

// TestAdoptedIDsOfThePool: a kubelet without a range of its own takes ids of the pool,
// too, and its pod never gets others.
func TestAdoptedIDsOfThePool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := open(t, dir, idmap.Span{First: 1 << 24, Size: 2 * slotSize})
	// Over both slots, as a kubelet's ranges start at any multiple of their length.
	m := idmap.Contiguous(1<<24+slotSize/2, slotSize)
	a, err := p.Adopt(t.Context(), m, Owner{ID: "a"}, "", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.AcquirePreferred(t.Context(), Owner{}, slotSize, 0); !errors.Is(err, errExhausted) || !strings.Contains(err.Error(), `container "a" has adopted`) {
		t.Errorf("the pool gives them to another container: %v", err)
	}
	if err := a.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	own := acquire(t, p, Owner{ID: "own"}, slotSize)
	if _, err := p.Adopt(t.Context(), m, Owner{ID: "b"}, "", false); !errors.Is(err, ErrOverlap) || !strings.Contains(fmt.Sprint(err), `container "own"`) {
		t.Errorf("a part is given out: %v", err)
	}
	if err := own.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Adopt(t.Context(), m, Owner{ID: "b"}, "", false); err != nil {
		t.Error(err)
	}
}

// TestAdoptedIDsOutliveShim: they are the container's as long as its first process
// lives.
func TestAdoptedIDsOutliveShim(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir(), idmap.Span{First: 1 << 24, Size: slotSize})
	m := idmap.Contiguous(100000, 65536)
	a, err := p.Adopt(t.Context(), m, Owner{ID: "a"}, "", false)
	if err != nil {
		t.Fatal(err)
	}
	init := child(t, 0)
	if err := a.Bound(init.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := a.close(); err != nil { // as when the holder is killed
		t.Fatal(err)
	}
	if _, err := p.Adopt(t.Context(), m, Owner{ID: "b"}, "", false); !errors.Is(err, ErrOverlap) {
		t.Errorf("%v, while the first process lives", err)
	}
	kill(init)
	if _, err := p.Adopt(t.Context(), m, Owner{ID: "b"}, "", false); err != nil {
		t.Error(err)
	}
}

// TestPodSharesAdoptedIDs: containers in one user namespace have the same ids, and
// keep them until the last one is gone.
func TestPodSharesAdoptedIDs(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir(), idmap.Span{First: 1 << 24, Size: slotSize})
	m := idmap.Contiguous(100000, 65536)
	sandbox, err := p.Adopt(t.Context(), m, Owner{ID: "sandbox"}, "", false)
	if err != nil {
		t.Fatal(err)
	}
	init, stranger := child(t, unix.CLONE_NEWUSER), child(t, unix.CLONE_NEWUSER)
	userns := func(cmd *exec.Cmd) string { return fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid) }
	if err := sandbox.Bound(init.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Adopt(t.Context(), m, Owner{ID: "stranger"}, userns(stranger), false); !errors.Is(err, ErrOverlap) {
		t.Errorf("another user namespace: %v", err)
	}
	app, err := p.Adopt(t.Context(), m, Owner{ID: "app"}, userns(init), false)
	if err != nil {
		t.Fatal(err)
	}
	kill(init)
	if err := sandbox.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Adopt(t.Context(), m, Owner{ID: "b"}, "", false); !errors.Is(err, ErrOverlap) {
		t.Errorf("%v, while a container of the pod lives", err)
	}
	if err := app.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Adopt(t.Context(), m, Owner{ID: "b"}, "", false); err != nil {
		t.Error(err)
	}
}

// TestAdoptedIDsAndAnotherPool: callers may be configured with different pools.
func TestAdoptedIDsAndAnotherPool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	near, far := idmap.Span{First: 1 << 24, Size: slotSize}, idmap.Span{First: 1 << 25, Size: slotSize}
	one, other := open(t, dir, near), open(t, dir, far)
	l := acquire(t, other, Owner{ID: "x"}, slotSize)
	if _, err := one.Adopt(t.Context(), l.Mapping(), Owner{ID: "b"}, "", false); !errors.Is(err, ErrOverlap) || !strings.Contains(fmt.Sprint(err), `"x"`) {
		t.Errorf("range of the other pool: %v", err)
	}
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := one.Adopt(t.Context(), idmap.Contiguous(far.First+10, 10), Owner{ID: "a"}, "", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.AcquirePreferred(t.Context(), Owner{}, slotSize, 0); !errors.Is(err, errExhausted) || !strings.Contains(err.Error(), `container "a" has adopted`) {
		t.Errorf("range with adopted ids: %v", err)
	}
	if err := a.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	acquire(t, other, Owner{}, slotSize)
}
