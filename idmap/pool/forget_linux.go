// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/flock"
)

// Forget clears what the files in dir say of a container that has ended, and whose shim
// was killed before it could release the lease. Otherwise the range would stay reserved
// whenever a later container of that name runs, which has the same cgroups.
//
// The caller has proved that no process of the container lives. Nothing is cleared that
// has a holder, or in which another container has had a part that may live. The range is
// not noted as free: before it is given out, a look proves that no process has its ids.
func Forget(ctx context.Context, dir string, of Owner, m idmap.Mapping) (retErr error) {
	names := filesOf(dir, m)
	if len(names) == 0 {
		return nil
	}
	p := &Pool{dir: dir}
	// Sharing a range takes the lock of its file too, and does not wait for it.
	lock, err := p.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, flock.Close(lock)) }()
	var errs []error
	for _, name := range names {
		if err := forget(ctx, name, of); err != nil {
			errs = append(errs, fmt.Errorf("forget the ids of container %q: %w", of.ID, err))
		}
	}
	return errors.Join(errs...)
}

// filesOf returns the paths of the files that may name a container with a mapping.
func filesOf(dir string, m idmap.Mapping) []string {
	spans := hostSpans(m)
	if len(spans) == 0 {
		return nil
	}
	names := []string{filepath.Join(adoptedDir, adoptedName(m, spans))}
	if root, ok := m.RootUID(); ok && len(m.UIDs) == 1 && m.Equal(idmap.Contiguous(root, m.UIDs[0].Size)) {
		for n, end := slots(m.UIDs[0].Span()); n < end; n++ {
			names = append(names, slotName(n))
		}
	}
	var paths []string
	for _, name := range names {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}

func forget(ctx context.Context, path string, of Owner) (retErr error) {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, flock.Close(file)) }()
	if err := flock.Exclusive(file); errors.Is(err, flock.ErrLocked) {
		return nil
	} else if err != nil {
		return err
	}
	r, ok, err := readRecord(file)
	if err != nil || !ok || !r.has(of) {
		return err
	}
	inUse := r.inUse
	if len(r.joined) == 0 { // its cgroups may be another's by now
		inUse = r.initInUse
	}
	if inUse(ctx) != "" {
		return nil
	}
	return file.Truncate(0)
}

// has tells whether a container has, or had, a part in the range.
func (r record) has(o Owner) bool {
	return slices.ContainsFunc(append(r.joined, r.owner), func(other Owner) bool {
		return other.Namespace == o.Namespace && other.ID == o.ID
	})
}
