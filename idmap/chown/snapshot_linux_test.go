// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/idmap"
)

// TestConcurrentStarts: starts of one snapshot wait for each other; those with the
// same ids share it, one with others is told who has it.
func TestConcurrentStarts(t *testing.T) {
	s, want := newSandbox(t, 0)
	const starts = 4
	type result struct {
		n   *Snapshot
		r   Report
		err error
	}
	results := make(chan result, starts)
	for range starts {
		go func() {
			tree, err := os.Open(s.root)
			if err != nil {
				results <- result{err: err}
				return
			}
			defer tree.Close()
			n, err := s.store.Acquire(t.Context(), s.dir, "pod/a", spanAt(rangeA), nil)
			if err != nil {
				results <- result{err: err}
				return
			}
			r, err := n.Shift(t.Context(), tree, spanAt(rangeA), Options{})
			results <- result{n, r, err}
		}()
	}
	walks := 0
	var used []*Snapshot
	for range starts {
		r := <-results
		must(t, r.err)
		used = append(used, r.n)
		if r.r.Inodes > 0 {
			walks++
		}
	}
	if walks != 1 {
		t.Errorf("%d walks for %d starts", walks, starts)
	}
	_, err := s.store.Acquire(t.Context(), s.dir, "pod/b", spanAt(rangeB), nil)
	var busy *BusyError
	if !errors.As(err, &busy) || !errors.Is(err, ErrBusy) || busy.Owner != "pod/a" || busy.Span != spanAt(rangeA) {
		t.Errorf("another range: %v", err)
	}
	for _, n := range used {
		must(t, n.Close())
	}
	// The lock of a container whose shim was killed is gone, but it is not.
	asked := ""
	_, err = s.store.Acquire(t.Context(), s.dir, "pod/b", spanAt(rangeB), func(owner string) bool { asked = owner; return true })
	if !errors.Is(err, ErrBusy) || asked != "pod/a" {
		t.Errorf("while %q is alive: %v", asked, err)
	}
	s.moveTo(t, rangeB)
	compare(t, "at last", describe(t, s.root, rangeB), want)
}

// TestWaitIsBounded: a start does not wait for another one longer than it may.
func TestWaitIsBounded(t *testing.T) {
	s, _ := newSandbox(t, 0)
	n, err := s.store.Acquire(t.Context(), s.dir, "default/a", spanAt(rangeA), nil)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = s.store.Acquire(ctx, s.dir, "default/b", spanAt(rangeB), nil)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another start of it moves its ids") {
		t.Errorf("while another start has it: %v", err)
	}
	must(t, n.Close())
}

// TestNewSnapshotOfTheSameName: nothing is believed of a directory that was made
// anew, and what is gone is forgotten.
func TestNewSnapshotOfTheSameName(t *testing.T) {
	s, _ := newSandbox(t, 0)
	s.moveTo(t, rangeA)
	must(t, os.RemoveAll(s.root))
	must(t, os.Mkdir(s.root, 0o755))
	if st, ok, err := s.store.Recorded(s.dir); ok || err != nil {
		t.Errorf("state of another directory: %+v, %v", st, err)
	}
	makeFiles(t, s.root)
	want := describe(t, s.root, 0)
	s.moveTo(t, rangeB)
	compare(t, "new", describe(t, s.root, rangeB), want)

	must(t, os.RemoveAll(s.root))
	other, _ := newSandbox(t, 0)
	other.store = s.store
	other.moveTo(t, rangeA)
	if states := s.states(t); len(states) != 1 {
		t.Errorf("states of one snapshot: %q", states)
	}
	if names, err := os.ReadDir(s.store.dir); err != nil || len(names) != 3 {
		t.Errorf("files of one snapshot: %v, %v", names, err)
	}
}

// TestAfterReboot: what may not have been on disk is looked for once.
func TestAfterReboot(t *testing.T) {
	s, want := newSandbox(t, 0)
	s.moveTo(t, rangeA)
	name := s.states(t)[0]
	data, err := os.ReadFile(name)
	must(t, err)
	boot, err := bootID()
	must(t, err)
	must(t, os.WriteFile(name, bytes.ReplaceAll(data, []byte(boot), []byte("another")), 0o600))
	must(t, os.Lchown(s.root+"/plain", 0, 0)) // lost with the power
	if r := s.moveTo(t, rangeA); r.Moved != 1 {
		t.Errorf("report %+v", r)
	}
	compare(t, "after a reboot", describe(t, s.root, rangeA), want)
	if r := s.moveTo(t, rangeA); r.Inodes != 0 {
		t.Errorf("once more %+v", r)
	}
}

// TestOverlappingRange: ranges of other sizes may overlap those before; then all
// goes back first.
func TestOverlappingRange(t *testing.T) {
	s, want := newSandbox(t, 0)
	tree, err := os.Open(s.root)
	must(t, err)
	defer tree.Close()
	for _, to := range []idmap.Span{{First: rangeA, Size: 131072}, {First: rangeB, Size: 65536}, {First: rangeA, Size: 65536}} {
		n, err := s.store.Acquire(t.Context(), s.dir, "default/a", to, func(string) bool { return false })
		must(t, err)
		_, err = n.Shift(t.Context(), tree, to, Options{})
		must(t, errors.Join(err, n.Close()))
		compare(t, to.String(), describe(t, s.root, uint32(to.First)), want)
	}
	n, err := s.store.Acquire(t.Context(), s.dir, "default/a", idmap.Span{First: 65536, Size: 131072}, func(string) bool { return false })
	must(t, err)
	_, err = n.Shift(t.Context(), tree, idmap.Span{First: 65536, Size: 131072}, Options{})
	must(t, n.Close())
	if err == nil || !strings.Contains(err.Error(), "choose a higher \"ids.pool\"") {
		t.Errorf("range within the ids of images: %v", err)
	}
}
