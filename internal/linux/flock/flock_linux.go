// SPDX-License-Identifier: Apache-2.0

// Package flock takes locks by flock(2). It does not wait for a lock, since a blocking
// call cannot be given up. A lock lives as long as the open file, and no program that
// this one executes keeps the file.
package flock

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked means that another open file has a lock that excludes this one.
var ErrLocked = errors.New("locked by another process")

// Exclusive takes the lock that excludes every other one, or turns a shared lock into
// it. If that fails, the shared lock may be lost (flock(2)).
func Exclusive(f *os.File) error { return lock(f, unix.LOCK_EX) }

// Shared takes a lock that excludes exclusive ones, or turns an exclusive lock into one.
func Shared(f *os.File) error { return lock(f, unix.LOCK_SH) }

// Close drops the lock of a file, if it has one, and closes the file. To close it alone
// would not drop the lock at once: a child that this process is just starting has a copy
// of the descriptor until it executes its program. Close does nothing if f is nil.
func Close(f *os.File) error {
	if f == nil {
		return nil
	}
	return errors.Join(lock(f, unix.LOCK_UN), f.Close())
}

func lock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return explain(f.Name(), err)
		}
	}
}

// explain gives the two failures of flock(2) that matter an error of their own.
func explain(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return ErrLocked
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		label, _ := os.ReadFile("/proc/thread-self/attr/current") // "" without a security module
		return denied(path, string(label), err)
	}
	return &os.PathError{Op: "flock", Path: path, Err: err}
}

// denied explains that a security module denies a lock to the shim, which has the label
// of the containerd that started it.
func denied(path, label string, err error) error {
	profile, mode, ok := strings.Cut(strings.TrimRight(label, "\x00\n"), " (")
	if !ok || mode == "unconfined)" {
		return fmt.Errorf("lock %q: a security module denies file locks, allow them in its policy for containerd: %w", path, err)
	}
	return fmt.Errorf("lock %q: AppArmor profile %s, under which this containerd and its shims run, denies file locks, which neither isolate nor containerd's own store can do without: "+
		"use a containerd that is not confined (MicroK8s: install it with --classic), or allow locks (permission k) in that profile: %w", path, profile, err)
}
