// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/fork"
)

// fork forks the child, which does the work.
//
//go:nosplit
//go:norace
func (c *child) fork(call *fork.Call) {
	if call.InChild() {
		c.run(call)
		fork.Exit(0)
	}
}

// run does the work of the child. There is no Go runtime in the child: run must not
// grow the stack, allocate, or panic.
//
//go:nosplit
//go:norace
func (c *child) run(call *fork.Call) {
	for i := 0; i < c.gapN; i++ {
		syscall.RawSyscall(unix.SYS_CLOSE_RANGE, c.gaps[i][0], c.gaps[i][1], 0)
	}
	// A server that has died would leave the inner container with errors instead of
	// files. It is asked before anything of the container can hold up the child.
	c.report.stage = stageServer
	if !c.ok(syscall.RawSyscall6(unix.SYS_STATX, c.server, uintptr(unsafe.Pointer(&c.empty)),
		unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(&c.statx[0])), 0)) {
		return
	}
	c.report.stage = stageArgument
	c.argument()
	c.report.stage = stageNamespace
	if !c.enter(call) {
		return
	}
	c.report.stage = stageRoot
	root := c.openAt(notOpen, unsafe.Pointer(&c.path), &c.anyHow)
	if root == notOpen {
		return
	}
	// A caller that names its own root is no runtime.
	if c.same(c.root, root) {
		c.report.stage = stageNothing
		return
	}
	c.report.stage = stageFiles
	if !c.openTops(root) {
		c.report.stage = stageNothing
		return
	}
	c.report.errno = 0
	c.attach()
	c.report.stage = stageDone
}

// argument reads the path of the new root. If it cannot read the memory, or finds no
// path there, it takes the working directory: all known runtimes change to the new root
// first and pass ".".
//
//go:nosplit
//go:norace
func (c *child) argument() {
	if c.memory != notOpen {
		n, _, errno := syscall.RawSyscall6(unix.SYS_PREAD64, c.memory, uintptr(unsafe.Pointer(&c.path)), uintptr(len(c.path)), c.address, 0, 0)
		for i := uintptr(0); errno == 0 && i < n && i < uintptr(len(c.path)); i++ {
			if c.path[i] == 0 && i > 0 {
				return
			}
		}
	}
	c.path[0], c.path[1] = '.', 0
}

// enter enters the container: first its user namespace, so that the child can use FUSE
// mounts of the container and can do no more than the container's root; then its mount
// namespace, with the caller's root and working directory.
//
//go:nosplit
//go:norace
func (c *child) enter(call *fork.Call) bool {
	if !c.ok(syscall.RawSyscall(unix.SYS_SETNS, c.userns, unix.CLONE_NEWUSER, 0)) {
		return false
	}
	// This fails if root is not mapped; the capabilities do not depend on it.
	syscall.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0)
	syscall.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0)
	call.DieWithParent()
	return c.ok(syscall.RawSyscall(unix.SYS_SETNS, c.mntns, unix.CLONE_NEWNS, 0)) &&
		c.ok(syscall.RawSyscall(unix.SYS_FCHDIR, c.root, 0, 0)) &&
		c.ok(syscall.RawSyscall(unix.SYS_CHROOT, uintptr(unsafe.Pointer(&c.dot)), 0, 0)) &&
		c.ok(syscall.RawSyscall(unix.SYS_FCHDIR, c.cwd, 0, 0))
}

// openTops opens the directories proc and sys if they really are such file systems.
//
//go:nosplit
//go:norace
func (c *child) openTops(root uintptr) (found bool) {
	for i := 0; i < c.topN && i < len(c.tops); i++ {
		fd := c.openAt(root, unsafe.Pointer(&c.tops[i].name), &c.topHow)
		if fd == notOpen {
			continue
		}
		_, _, errno := syscall.RawSyscall(unix.SYS_FSTATFS, fd, uintptr(unsafe.Pointer(&c.statfs)), 0)
		if errno == 0 && int64(c.statfs.Type) == c.tops[i].magic { //nolint:unconvert // narrower on some platforms
			c.tops[i].fd = fd
			found = true
		}
	}
	return found
}

// attach attaches each view whose place is a file on which nothing is mounted.
//
//go:nosplit
//go:norace
func (c *child) attach() {
	for i := 0; i < c.graftN && i < len(c.grafts); i++ {
		place := &c.grafts[i]
		if uint(place.top) >= uint(len(c.tops)) || c.tops[place.top].fd == notOpen {
			continue
		}
		fd := c.openAt(c.tops[place.top].fd, unsafe.Pointer(&place.name), &c.how)
		if fd == notOpen {
			continue
		}
		if c.ok(syscall.RawSyscall6(unix.SYS_MOVE_MOUNT, place.view, uintptr(unsafe.Pointer(&c.empty)),
			fd, uintptr(unsafe.Pointer(&c.empty)), unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH, 0)) {
			c.report.attached++
		}
	}
}

// same tells whether two directories are the same one of the same mount.
//
//go:nosplit
//go:norace
func (c *child) same(a, b uintptr) bool {
	const want = unix.STATX_INO | unix.STATX_MNT_ID
	for i, fd := range [2]uintptr{a, b} {
		if !c.ok(syscall.RawSyscall6(unix.SYS_STATX, fd, uintptr(unsafe.Pointer(&c.empty)),
			unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, want, uintptr(unsafe.Pointer(&c.statx[i])), 0)) {
			return false
		}
	}
	return c.statx[0].Mnt_id == c.statx[1].Mnt_id && c.statx[0].Ino == c.statx[1].Ino
}

// maxTries bounds how often a path is looked up, each time in microseconds.
const maxTries = 10000

// openAt is openat2(2); notOpen as dir stands for the working directory.
//
//go:nosplit
//go:norace
func (c *child) openAt(dir uintptr, name unsafe.Pointer, how *unix.OpenHow) uintptr {
	if dir == notOpen {
		dir = ^uintptr(99) // AT_FDCWD is -100
	}
	// EAGAIN says nothing about the path, see openat.Open.
	for tries := 0; ; tries++ {
		fd, _, errno := syscall.RawSyscall6(unix.SYS_OPENAT2, dir, uintptr(name), uintptr(unsafe.Pointer(how)), unsafe.Sizeof(*how), 0, 0)
		if errno == 0 {
			return fd
		}
		if errno != unix.EAGAIN || tries == maxTries {
			c.report.errno = int32(errno)
			return notOpen
		}
	}
}

// ok tells whether a system call succeeded, and keeps its error.
//
//go:nosplit
//go:norace
func (c *child) ok(_, _ uintptr, errno syscall.Errno) bool {
	if errno != 0 {
		c.report.errno = int32(errno)
	}
	return errno == 0
}
