// SPDX-License-Identifier: Apache-2.0

package fork

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Holder is an [Idle] child that also makes namespaces by unshare(2): those that a child
// makes only for its own children.
type Holder struct {
	*Process

	ready int // an eventfd
}

// Hold starts a child with flags of clone3(2), which then enters the user namespace
// userns, unless that is nil, and calls unshare(2). It does not wait for these;
// [Holder.Made] does, and userns must stay open until then. The calling goroutine must
// be locked to its thread, since the child dies with that thread.
func Hold(flags uint64, userns *os.File, unshare int) (*Holder, error) {
	ready, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	h := holding{Call: Call{bare: true}, flags: uintptr(unshare), ready: uintptr(ready)}
	if userns != nil {
		h.enters, h.userns = true, userns.Fd()
	}
	child, err := h.start(flags|unix.CLONE_FILES, h.fork) // CLONE_FILES: see Idle
	if err != nil {
		return nil, errors.Join(err, unix.Close(ready))
	}
	return &Holder{child, ready}, nil
}

// Made waits until the child has what it was started for. The error is the child's
// errno; the child lives on then, too. Made must be called once at most.
func (h *Holder) Made() error {
	either := []unix.PollFd{{Fd: int32(h.ready), Events: unix.POLLIN}, {Fd: int32(h.PIDFD()), Events: unix.POLLIN}} //nolint:gosec // descriptors
	err := error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		_, err = unix.Poll(either, -1)
	}
	if err != nil {
		return os.NewSyscallError("poll", err)
	}
	if either[0].Revents == 0 {
		return errors.New("the child was killed")
	}
	var told [8]byte
	if _, err := unix.Read(h.ready, told[:]); err != nil {
		return os.NewSyscallError("read", err)
	}
	if errno := binary.NativeEndian.Uint64(told[:]) - 1; errno != 0 {
		return syscall.Errno(errno)
	}
	return nil
}

// End kills the child and waits until it is gone.
func (h *Holder) End() error {
	return errors.Join(h.Process.End(), os.NewSyscallError("close", unix.Close(h.ready)))
}

// holding is what the child needs. It must be on the stack.
type holding struct {
	Call

	flags         uintptr
	enters        bool
	userns, ready uintptr
	told          uint64 // an errno and 1
}

//go:nosplit
//go:norace
func (h *holding) fork() {
	if h.InChild() {
		h.told = 1 + h.run()
		syscall.RawSyscall(unix.SYS_WRITE, h.ready, uintptr(unsafe.Pointer(&h.told)), unsafe.Sizeof(h.told)) // cannot fail
		sleep()
	}
}

// run returns an errno.
//
//go:nosplit
//go:norace
func (h *holding) run() uint64 {
	if h.enters {
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETNS, h.userns, unix.CLONE_NEWUSER, 0); errno != 0 {
			return uint64(errno)
		}
		h.DieWithParent()
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_UNSHARE, h.flags, 0, 0)
	return uint64(errno)
}
