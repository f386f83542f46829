// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// tryLock takes a flock on a file without waiting, and makes the file if it does
// not exist. The lock lives as long as the open file.
//
// A lock file goes with the snapshot, so the file that was locked may not be the
// one of that name any more.
func tryLock(name string, lock func(*os.File) error) (*os.File, error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock rootfs: %w", err)
		}
		if err := lock(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		same, err := named(f, name)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if same {
			return f, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// named tells whether a name still leads to an open file.
func named(f *os.File, name string) (bool, error) {
	var open, there unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &open); err != nil {
		return false, &os.PathError{Op: "fstat", Path: name, Err: err}
	}
	err := unix.Lstat(name, &there)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "lstat", Path: name, Err: err}
	}
	return open.Dev == there.Dev && open.Ino == there.Ino, nil
}
