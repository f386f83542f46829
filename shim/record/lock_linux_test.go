// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestLock: one at a time has an id, also while the directory comes and goes with the
// records of each, and nothing is left of it.
func TestLock(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	var here atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 10 {
				unlock, err := lock(t.Context(), root, "default", "c1")
				if err != nil {
					t.Error(err)
					return
				}
				if n := here.Add(1); n != 1 {
					t.Errorf("%d have the same id", n)
				}
				if r := sample(root); i%2 == 0 {
					if err := errors.Join(r.Save(), r.Cleanup(nil)); err != nil {
						t.Error(err)
					}
				}
				here.Add(-1)
				unlock()
			}
		})
	}
	all.Wait()
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestLockIsGivenUp: who waits too long gets a sentence, and whose request is over
// gets no lock that happens to be free.
func TestLockIsGivenUp(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	unlock, err := lock(t.Context(), root, "default", "c1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, root, "default", "c1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	unlock()
	if _, err := lock(ctx, root, "default", "c1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	unlock, err = lock(t.Context(), root, "default", "c1")
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// TestDrop: of a shim that is killed beside its record, nothing stays.
func TestDrop(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := sample(root)
	d, err := r.Dir()
	if err != nil {
		t.Fatal(err)
	}
	temporary := filepath.Join(d, ".record.json.tmp123")
	for name, leave := range map[string]func() error{
		"nothing":         func() error { return nil },
		"the namespace":   func() error { return os.Mkdir(filepath.Dir(d), 0o711) },
		"before a record": func() error { return os.MkdirAll(d, 0o711) },
		"half a record":   func() error { return errors.Join(os.MkdirAll(d, 0o711), os.WriteFile(temporary, nil, 0o600)) },
		"only the note":   func() error { return errors.Join(r.Save(), r.Unfinished(), os.Remove(filepath.Join(d, file))) },
	} {
		if err := errors.Join(leave(), drop(t.Context(), root, r.Namespace, r.ID)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
			t.Fatalf("%s: left %v, %v", name, left, err)
		}
	}
	if err := errors.Join(r.Save(), drop(t.Context(), root, r.Namespace, r.ID)); err != nil {
		t.Error(err)
	}
	if _, err := load(root, r.Namespace, r.ID); err != nil {
		t.Error("the next one's record is gone", err)
	}
}

func TestUnfinished(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	found := func() (ids []string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := eachUnfinished(ctx, root, func(r *Record) { ids = append(ids, r.Namespace+"/"+r.ID) })
		if err != nil {
			t.Error(err)
		}
		return ids
	}
	if got := found(); len(got) > 0 {
		t.Error(got)
	}
	r := sample(root)
	if err := r.Unfinished(); err != nil { // without a record
		t.Error(err)
	}
	if err := errors.Join(r.Save(), r.Unfinished(), r.Unfinished()); err != nil {
		t.Fatal(err)
	}
	if got := found(); len(got) != 1 || got[0] != "default/c1" {
		t.Error(got)
	}
	unlock, err := lock(t.Context(), root, "default", "c1")
	if err != nil {
		t.Fatal(err)
	}
	if got := found(); len(got) > 0 {
		t.Error("somebody is at it", got)
	}
	unlock()
	if err := r.Save(); err != nil { // that of a later container
		t.Fatal(err)
	}
	if got := found(); len(got) > 0 {
		t.Error("a later container is undone", got)
	}
	if err := errors.Join(r.Unfinished(), r.Cleanup(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(root, ".unfinished")); !errors.Is(err, fs.ErrNotExist) || len(found()) > 0 {
		t.Errorf("left: %v", err)
	}
}
