// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/fork"
)

// Probe tries whether containers of this shim can have a listener, and returns why not:
// the kernel is too old, or the shim itself runs under a listener, as in a container of
// another isolate. A runtime could then not start a container with a listener. Probe
// tries once and keeps the answer.
var Probe = sync.OnceValue(func() error {
	errno, err := refused()
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

// refused returns the error of the kernel for a filter with a listener. A process that
// has no filter at all need not try one: the kernel reads the filter only if it knows
// the flag (seccomp(2)), and there is no other listener.
func refused() (syscall.Errno, error) {
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	if err != nil || mode != unix.SECCOMP_MODE_DISABLED {
		return tryListener()
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, 0)
	if errno == unix.EFAULT {
		return 0, nil
	}
	return errno, nil
}

// allowAll is a filter that never calls its listener.
var allowAll = [...]unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}

// tryListener loads a filter in a process that ends at once: a filter cannot be
// unloaded, and every process that its thread forks, such as a runtime, would have it.
func tryListener() (syscall.Errno, error) {
	prog := &unix.SockFprog{Len: uint16(len(allowAll)), Filter: &allowAll[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p, err := fork.Start(0, func(c *fork.Call) { forkToTry(c, prog) })
	if err != nil {
		return 0, err
	}
	exit, err := p.Wait(time.Time{})
	return syscall.Errno(exit.Status), errors.Join(err, p.Close()) //nolint:gosec // an errno
}

// forkToTry forks a child whose exit status is the error of seccomp(2).
//
//go:nosplit
//go:norace
func forkToTry(c *fork.Call, prog *unix.SockFprog) {
	if c.InChild() {
		_, _, errno := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
			unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(prog)))
		fork.Exit(uintptr(errno))
	}
}
