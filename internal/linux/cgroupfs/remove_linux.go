// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// BusyError says that a group cannot be removed since processes are in it.
type BusyError struct {
	Dir       string
	Processes []int // some of them
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("cgroup %s is in use by processes %v", e.Dir, e.Processes)
}

// Unwrap returns EBUSY, as rmdir(2) does.
func (*BusyError) Unwrap() error { return unix.EBUSY }

// Remove removes a group and all groups below it. It removes all that it can, and
// returns a [BusyError] if groups have processes. A group that does not exist is no
// error.
//
// A killed process leaves its group only when it is gone, milliseconds later.
func Remove(ctx context.Context, dir string) error {
	return remove(ctx, dir, visitor{}, true)
}

// RemoveBelow removes the groups below a group for whose user owner returns true, and
// the groups below those.
func RemoveBelow(ctx context.Context, dir string, owner func(uid uint32) bool) error {
	return remove(ctx, dir, visitor{skip: func(st unix.Stat_t) bool { return !owner(st.Uid) }}, false)
}

func remove(ctx context.Context, dir string, v visitor, all bool) error {
	top, err := open(dir)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	defer top.Close()
	var busy *BusyError
	v.leave = func(at int, name string) error {
		if name == "." {
			return nil // by its path, below
		}
		err := unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
		if errors.Is(err, unix.EBUSY) {
			if busy == nil {
				busy = &BusyError{Dir: filepath.Join(dir, "..."), Processes: some(at, name)}
			}
			return nil // the others can go
		}
		return err
	}
	err = walk(ctx, top, v)
	if err == nil && all && busy == nil {
		err = ignoreGone(unix.Rmdir(dir))
		if errors.Is(err, unix.EBUSY) {
			busy = &BusyError{Dir: dir, Processes: some(int(top.Fd()), ".")}
		}
	}
	switch {
	case busy != nil:
		return busy
	case err != nil:
		return fmt.Errorf("remove cgroup %s: %w", dir, err)
	}
	return nil
}

// few is how many processes a message names.
const few = 5

// some returns a few of the processes of a group.
func some(at int, name string) []int {
	pids, err := processes(at, name)
	if err != nil {
		return nil
	}
	return pids[:min(few, len(pids))]
}
