// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// idleChild is a process that exists only to keep new namespaces alive until
// somebody holds them by file descriptor.
type idleChild struct {
	pid   int
	pidfd int
}

// cloneArgs is struct clone_args of clone3(2), first version.
type cloneArgs struct {
	flags      uint64
	pidFD      uint64
	childTID   uint64
	parentTID  uint64
	exitSignal uint64
	stack      uint64
	stackSize  uint64
	tls        uint64
}

// startIdleChild starts a child in new namespaces. The calling goroutine must be
// locked to its thread, since the child dies with that thread.
//
//   - Exit signal 0: the parent gets no SIGCHLD, and wait4(-1) without __WALL
//     does not see the child, so a reaper in this process cannot take it away.
//   - CLONE_FILES: the child has no copies of this process's descriptors, so it
//     cannot hold a mount busy or a file lock alive.
//   - It runs no Go code: only raw system calls on the forked thread, with all
//     signals blocked, because there is no Go runtime behind it.
func startIdleChild(flags uint64) (*idleChild, error) {
	// Pinned, hence on the heap: the kernel gets its address as a number, which
	// would go stale if the stack were moved before the call.
	pidfd := new(int32)
	var pin runtime.Pinner
	pin.Pin(pidfd)
	defer pin.Unpin()
	args := &cloneArgs{
		flags: flags | unix.CLONE_PIDFD | unix.CLONE_FILES,
		pidFD: uint64(uintptr(unsafe.Pointer(pidfd))),
	}
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return nil, fmt.Errorf("block signals: %w", err)
	}
	pid, errno := cloneIdle(args, uintptr(unix.Getpid()))
	maskErr := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	runtime.KeepAlive(args)
	if errno != 0 {
		return nil, os.NewSyscallError("clone3", errno)
	}
	child := &idleChild{pid: int(pid), pidfd: int(*pidfd)}
	if maskErr != nil {
		return nil, errors.Join(fmt.Errorf("unblock signals: %w", maskErr), child.kill())
	}
	return child, nil
}

// cloneIdle returns in the parent only.
//
//go:nosplit
//go:norace
func cloneIdle(args *cloneArgs, parent uintptr) (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0) //nolint:errcheck // cannot fail with a valid signal
	// The parent may have died before the line above.
	if ppid, _, _ := syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); ppid == parent {
		for {
			syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0) //nolint:errcheck // sleeps until killed
		}
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0) //nolint:errcheck // does not return
	}
}

// path names a file below the child's /proc/PID.
func (c *idleChild) path(name string) string { return fmt.Sprintf("/proc/%d/%s", c.pid, name) }

// kill ends the child and waits until it is gone.
func (c *idleChild) kill() error {
	killErr := unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0)
	waitErr := ignoringEINTR(func() error {
		return unix.Waitid(unix.P_PIDFD, c.pidfd, nil, unix.WEXITED|unix.WALL, nil)
	})
	// ECHILD: somebody waits for really every child; it is gone all the same.
	if errors.Is(waitErr, unix.ECHILD) {
		waitErr = nil
	}
	if errors.Is(killErr, unix.ESRCH) {
		killErr = nil
	}
	if err := errors.Join(killErr, waitErr, unix.Close(c.pidfd)); err != nil {
		return fmt.Errorf("end namespace holder %d: %w", c.pid, err)
	}
	return nil
}
