// SPDX-License-Identifier: Apache-2.0

// Package thread runs functions on operating system threads that are thrown away
// afterwards, because the kernel keeps much for each thread: credentials, root and
// working directory, namespaces.
package thread

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/eintr"
)

// Run runs fn on an operating system thread of its own that is
// destroyed afterwards, so fn may change what the kernel keeps for each thread:
// credentials, and after unshare(CLONE_FS) root, working directory and mount
// namespace. A panic in fn becomes an error.
//
// The thread dies because its goroutine ends without unlocking it (see
// runtime.LockOSThread). There is one exception: the main thread is parked, not
// destroyed, and would keep everything fn changed, visibly in /proc/PID/ns and
// /proc/PID/status. When the scheduler puts the goroutine there, it holds the
// main thread and lets another goroutine do the work, which then cannot land on
// it too.
//
// A thread that has children is spared in the same way: one that was started with
// SysProcAttr.Pdeathsig is killed when the thread that started it ends. OCI
// runtimes are started so by containerd's shim packages, from any thread, which
// is free for other goroutines while the runtime runs (Monitor.StartLocked in
// pkg/sys/reaper).
func Run(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		// Sent on every way out, also when fn ends the goroutine.
		err := errors.New("goroutine ended before its work did")
		defer func() { result <- err }()
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() || hasChildren() {
			defer runtime.UnlockOSThread()
			err = Run(fn)
			return
		}
		err = guard(fn)
	}()
	return <-result
}

// wNoThread is __WNOTHREAD of <linux/wait.h>: the calling thread's children only.
const wNoThread = 0x20000000

// hasChildren tells whether the calling thread has children that nobody has
// waited for.
func hasChildren() bool {
	err := eintr.Do(func() error {
		return unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL|wNoThread, nil)
	})
	return !errors.Is(err, unix.ECHILD)
}

// guard turns a panic in fn into an error: it must not take the shim, and with
// it every container of a pod, down.
func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn()
}

// SetFSIDs makes the calling thread act on file systems as another user and group
// while it keeps its capabilities. It must run on a disposable thread, see [Run].
//
// setfsuid(2) away from 0 drops the file capabilities from the effective set;
// the permitted set is untouched, so they can be raised again.
func SetFSIDs(uid, gid uint32) error {
	// Neither call reports an error: it returns the previous id, so the second
	// call of each tells what the first one did (setfsuid(2)).
	err := keepingCapabilities(func() error {
		unix.SetfsgidRetGid(int(gid)) //nolint:errcheck // see above
		unix.SetfsuidRetUid(int(uid)) //nolint:errcheck // see above
		return nil
	})
	if err != nil {
		return err
	}
	if got, err := unix.SetfsgidRetGid(-1); err != nil || uint32(got) != gid {
		return fmt.Errorf("set file system gid %d: kernel kept %d", gid, got)
	}
	if got, err := unix.SetfsuidRetUid(-1); err != nil || uint32(got) != uid {
		return fmt.Errorf("set file system uid %d: kernel kept %d", uid, got)
	}
	return nil
}

// keep is the id that setresuid(2) takes for "unchanged".
const keep = ^uintptr(0)

// assumeUser changes the real and the effective user of the calling thread, which
// keeps its saved one and its capabilities. It must run on a disposable thread. It
// does not go through package unix, which changes all threads.
func assumeUser(ruid, euid uintptr) error {
	return keepingCapabilities(func() error {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ruid, euid, keep); errno != 0 {
			return fmt.Errorf("become user %d: %w", euid, os.NewSyscallError("setresuid", errno))
		}
		return nil
	})
}

// keepingCapabilities runs fn, which changes the user, and raises the effective
// capabilities again that the kernel drops for it (capabilities(7)).
func keepingCapabilities(fn func() error) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		return fmt.Errorf("get capabilities: %w", err)
	}
	if err := fn(); err != nil {
		return err
	}
	if err := unix.Capset(&hdr, &caps[0]); err != nil {
		return fmt.Errorf("raise capabilities again: %w", err)
	}
	return nil
}
