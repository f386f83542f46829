// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
	"github.com/isolate-shim/isolate/internal/linux/flock"
)

// lockPause is the time between two tries: a blocking flock(2) cannot be given up.
const lockPause = 10 * time.Millisecond

// Lock reserves an id for whoever makes its container, or undoes it: all of that is
// done by names that the id gives, and may be done by one shim, by the next one and
// by `delete`, of which none ends the others. It waits until ctx ends, and fails if
// ctx has ended.
//
// The lock is a flock(2) on the directory of the record. A container has it while it
// is made and while it is undone, and not while it runs.
func Lock(ctx context.Context, namespace, id string) (unlock func(), err error) {
	return lock(ctx, Root, namespace, id)
}

func lock(ctx context.Context, root, namespace, id string) (unlock func(), err error) {
	d, err := dir(root, namespace, id)
	if err != nil {
		return nil, err
	}
	for {
		f, err := tryLock(d)
		if err == nil && ctx.Err() == nil {
			return func() { release(f) }, nil
		}
		if err == nil {
			release(f)
		}
		if err != nil && !errors.Is(err, flock.ErrLocked) && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reserve the id of container %q: %w", id, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("container %q in namespace %q is still being made or undone, try again later or use another id: %w", id, namespace, context.Cause(ctx))
		case <-time.After(lockPause):
		}
	}
}

// Drop removes what is left of an id that has no record: its maker was killed before
// he wrote one, or while he removed it.
func Drop(ctx context.Context, namespace, id string) error { return drop(ctx, Root, namespace, id) }

func drop(ctx context.Context, root, namespace, id string) error {
	d, err := dir(root, namespace, id)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(d); errors.Is(err, fs.ErrNotExist) { // the usual case
		_ = unix.Rmdir(filepath.Dir(d)) // which a killed one may have left after the other
		return nil
	}
	unlock, err := lock(ctx, root, namespace, id)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Lstat(filepath.Join(d, file)); err == nil { // the next one's
		return nil
	}
	r := Record{Namespace: namespace, ID: id, root: root}
	return errors.Join(atomicfile.Sweep(filepath.Join(d, file)), r.finished())
}

// tryLock answers ErrLocked if another one has the lock, and ErrNotExist if it was
// removed right now.
func tryLock(d string) (_ *os.File, err error) {
	if err := os.MkdirAll(d, 0o711); errors.Is(err, fs.ErrExist) {
		return nil, fs.ErrNotExist // it was there a moment ago
	} else if err != nil {
		_ = unix.Rmdir(filepath.Dir(d)) // made when the disk had room for one
		return nil, err
	}
	f, err := os.Open(d)
	if err != nil {
		return nil, err
	}
	if err := flock.Exclusive(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	was, err := f.Stat()
	if err == nil {
		var is os.FileInfo
		if is, err = os.Lstat(d); err == nil && !os.SameFile(was, is) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// release removes the directory if nothing is in it, and the namespace's: before the
// lock is free, so that nobody gets the lock of a directory that is gone.
func release(f *os.File) {
	_ = unix.Rmdir(f.Name())
	_ = unix.Rmdir(filepath.Dir(f.Name()))
	flock.Close(f) //nolint:errcheck // nothing was written
}
