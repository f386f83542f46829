// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Probe tells why no container of this shim can have a listener, by trying: the
// kernel is too old, or the shim itself runs under somebody's listener, as in a
// container of another isolate. A runtime asked for one would then fail to start
// the container. The answer is found once.
var Probe = sync.OnceValue(func() error {
	errno, err := tryListener()
	switch {
	case err != nil:
		return fmt.Errorf("try a seccomp listener: %w", err)
	case errno == unix.EBUSY:
		return fmt.Errorf("the shim runs under a seccomp listener itself: %w", errno)
	case errno != 0:
		return fmt.Errorf("the kernel refuses a seccomp listener (needs Linux 5.5): %w", errno)
	}
	return nil
})

// allowAll is a filter that never calls its listener.
var allowAll = [...]unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}

// tryListener loads a filter in a process that ends at once: a filter cannot be
// unloaded, and what is forked by its thread, a runtime maybe, would have it.
func tryListener() (_ syscall.Errno, retErr error) {
	prog := &unix.SockFprog{Len: uint16(len(allowAll)), Filter: &allowAll[0]}
	var args cloneArgs
	var pidfd int32
	runtime.LockOSThread()
	forked, err := withoutSignals(func() (uintptr, syscall.Errno) { return forkToTry(&args, &pidfd, prog) })
	runtime.UnlockOSThread()
	if !forked {
		return 0, err
	}
	defer func() { retErr = errors.Join(retErr, err, unix.Close(int(pidfd))) }()
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PIDFD, int(pidfd), &info, unix.WEXITED|unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("waitid", err)
		default:
			// si_status follows si_signo, si_errno, si_code (a word of the
			// machine with its padding), si_pid and si_uid (sigaction(2)).
			const status = 8 + unsafe.Sizeof(uintptr(0)) + 8
			return syscall.Errno(*(*int32)(unsafe.Add(unsafe.Pointer(&info), status))), nil //nolint:gosec // an errno
		}
	}
}

// forkToTry returns in the parent only. The child's exit status is the error of
// seccomp(2).
//
//go:nosplit
//go:norace
func forkToTry(args *cloneArgs, pidfd *int32, prog *unix.SockFprog) (uintptr, syscall.Errno) {
	// The address is taken here, where the stack cannot move.
	*args = cloneArgs{flags: unix.CLONE_PIDFD, pidFD: uint64(uintptr(unsafe.Pointer(pidfd)))}
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	_, _, errno = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(prog)))
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
	}
}
