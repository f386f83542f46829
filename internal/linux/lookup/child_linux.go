// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/fork"
)

// answer is the message of the child. A descriptor comes with it if the child has opened
// the path.
type answer struct{ errno int32 }

// asker holds what the child needs; it cannot allocate.
type asker struct {
	socket  uintptr
	path    [unix.PathMax]byte
	empty   [1]byte
	answer  answer
	statx   unix.Statx_t
	control [32]byte // a struct cmsghdr with one descriptor
	iov     unix.Iovec
	message unix.Msghdr
}

func newAsker(path string, socket int) *asker {
	a := &asker{socket: uintptr(socket)} //nolint:gosec // a descriptor
	copy(a.path[:], path)
	header := (*unix.Cmsghdr)(unsafe.Pointer(&a.control[0]))
	header.Level, header.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	header.SetLen(unix.CmsgLen(4))
	a.iov.Base = (*byte)(unsafe.Pointer(&a.answer))
	a.iov.SetLen(int(unsafe.Sizeof(a.answer)))
	a.message.Iov = &a.iov
	a.message.SetIovlen(1)
	a.message.Control = &a.control[0]
	return a
}

// fork forks the child, which looks the path up.
//
//go:nosplit
//go:norace
func (a *asker) fork(c *fork.Call) {
	if c.InChild() {
		a.run()
		fork.Exit(0)
	}
}

// run does the work of the child. There is no Go runtime in the child: run must not grow
// the stack, allocate, or panic.
//
//go:nosplit
//go:norace
func (a *asker) run() {
	fork.Keep(a.socket)
	const cwd = ^uintptr(99) // AT_FDCWD is -100
	fd, _, errno := syscall.RawSyscall(unix.SYS_OPEN_TREE, cwd, uintptr(unsafe.Pointer(&a.path)), unix.OPEN_TREE_CLOEXEC)
	if errno == 0 {
		*(*int32)(unsafe.Pointer(&a.control[unix.SizeofCmsghdr])) = int32(fd)
		a.message.Controllen = unix.SizeofCmsghdr + 8 // CMSG_SPACE
		_, _, errno = syscall.RawSyscall6(unix.SYS_STATX, fd, uintptr(unsafe.Pointer(&a.empty)),
			unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(&a.statx)), 0)
	}
	a.answer.errno = int32(errno)
	syscall.RawSyscall(unix.SYS_SENDMSG, a.socket, uintptr(unsafe.Pointer(&a.message)), unix.MSG_NOSIGNAL)
}
