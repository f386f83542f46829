// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lockPatience bounds the wait for the pool's lock if the caller's context
	// does not: the lock is held for the time of a scan, at most some 20 ms with
	// 4094 busy slots.
	lockPatience = 30 * time.Second

	// The lock is polled, since a blocking flock(2) cannot be given up.
	pollFirst = 100 * time.Microsecond
	pollMost  = 10 * time.Millisecond
)

// errLocked means that another open file holds the lock.
var errLocked = errors.New("locked by another process")

// tryLock takes an exclusive flock on f without waiting. It lives as long as the
// open file, and children do not keep it: the file is closed on exec.
func tryLock(f *os.File) error {
	var err error
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	runtime.KeepAlive(f)
	return lockError(f.Name(), err)
}

// unlock drops the lock of f, if it has one, and closes it. Closing alone would
// not do at once: a child that this process is just starting has a copy of the
// descriptor until it executes its program.
func unlock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_UN)
	if err != nil {
		err = &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
	return errors.Join(err, f.Close())
}

// lockError tells the two meanings of a failed flock that matter from the rest.
func lockError(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return errLocked
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return denied(path, readLabel(), err)
	}
	return &os.PathError{Op: "flock", Path: path, Err: err}
}

// denied explains a lock that a security module denies to the shim, which has the
// label of the containerd that started it.
func denied(path, label string, err error) error {
	profile, mode, ok := strings.Cut(strings.TrimRight(label, "\x00\n"), " (")
	if !ok || mode == "unconfined)" {
		return fmt.Errorf("lock %q: a security module denies file locks: %w", path, err)
	}
	return fmt.Errorf("lock %q: AppArmor profile %s, under which this containerd and its shims run, denies file locks, which neither isolate nor containerd's own store can do without: "+
		"use a containerd that is not confined (MicroK8s: install it with --classic), or allow locks (permission k) in that profile: %w", path, profile, err)
}

func readLabel() string {
	label, err := os.ReadFile("/proc/thread-self/attr/current")
	if err != nil {
		return ""
	}
	return string(label)
}

// lock takes the pool's lock and returns the file that holds it.
func (p *Pool) lock(ctx context.Context) (_ *os.File, retErr error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	f, err := p.open("lock")
	if err != nil {
		return nil, err
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, f.Close())
		}
	}()
	for wait := pollFirst; ; wait = min(2*wait, pollMost) {
		err := tryLock(f)
		if !errors.Is(err, errLocked) {
			return f, err
		}
		// Jitter, so that many waiters do not come back at the same moment.
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("lock id pool %q: held by another process: %w", f.Name(), context.Cause(ctx))
		case <-timer.C:
		}
	}
}
