// SPDX-License-Identifier: Apache-2.0

package fork

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cloneArgs is struct clone_args of clone3(2), first version.
type cloneArgs struct {
	flags, pidFD, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
}

// Call is a fork that is about to happen.
type Call struct {
	args   cloneArgs
	pidfd  int32 // written by clone3
	parent uintptr
	pid    uintptr
	errno  syscall.Errno

	bare     bool // see bare_linux.go
	withheld syscall.Errno
}

// Start calls fork, which must call [Call.InChild] once. flags are flags of clone3(2).
// The calling goroutine must be locked to its thread until the child has ended, since
// the child dies with that thread.
//
//   - Exit signal 0: the parent gets no SIGCHLD, and wait4(-1) without __WALL does not
//     see the child, so a reaper in this process (each shim has one) cannot take it
//     away.
//   - Without CLONE_FILES the child has copies of this process's descriptors. A child
//     that can be held up must close them, or it keeps locks, sockets and mounts.
//   - All signals are blocked in the child, since their handlers belong to Go.
func Start(flags uint64, fork func(*Call)) (*Process, error) {
	c := &Call{}
	return c.start(flags, func() { fork(c) })
}

// start is [Start] for a fork that has c already.
func (c *Call) start(flags uint64, fork func()) (*Process, error) {
	c.args.flags, c.parent = flags|unix.CLONE_PIDFD, uintptr(unix.Getpid())
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return nil, fmt.Errorf("block signals: %w", err)
	}
	// What is withheld from one child, others need: also those that Go makes for new user
	// namespaces, before they execute a program.
	syscall.ForkLock.Lock()
	fork()
	syscall.ForkLock.Unlock()
	err := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	if err != nil {
		err = fmt.Errorf("unblock signals: %w", err)
	}
	if c.errno != 0 {
		return nil, errors.Join(os.NewSyscallError("clone3", c.errno), err)
	}
	// A goroutine can then wait for it without a thread.
	err = errors.Join(err, os.NewSyscallError("fcntl", unix.SetNonblock(int(c.pidfd), true)))
	if c.withheld != 0 {
		err = errors.Join(err, os.NewSyscallError("madvise", c.withheld))
	}
	p := &Process{PID: int(c.pid), pidfd: int(c.pidfd), file: os.NewFile(uintptr(c.pidfd), "pidfd")}
	if err != nil {
		p.Leave()
		return nil, err
	}
	return p, nil
}

// InChild forks, and tells whether this is the child. In the child the caller must not
// return; it must call [Exit].
//
//go:nosplit
//go:norace
func (c *Call) InChild() bool {
	// The addresses are taken here, where the stack cannot move.
	c.args.pidFD = uint64(uintptr(unsafe.Pointer(&c.pidfd)))
	heap := c.heap()
	_ = heap.advise(unix.MADV_DONTFORK) // else the child has a copy
	c.pid, _, c.errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&c.args)), unsafe.Sizeof(c.args), 0)
	if c.errno != 0 || c.pid != 0 {
		c.withheld = heap.advise(unix.MADV_DOFORK)
		return false
	}
	c.DieWithParent()
	return true
}

// DieWithParent binds the child to the thread that has made it. [Call.InChild] does so. A
// child that changes its user, or enters a user namespace that another user owns, loses
// the bond and must call this again (commit_creds in kernel/cred.c).
//
//go:nosplit
//go:norace
func (c *Call) DieWithParent() {
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0) // cannot fail with a valid signal
	// The parent may have died before the line above.
	if ppid, _, _ := syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); ppid != c.parent {
		Exit(1)
	}
}

// Keep closes all descriptors of a child but one: a child that is held up for ever must
// not keep a lock or a socket of the parent.
//
//go:nosplit
//go:norace
func Keep(fd uintptr) {
	if fd > 0 {
		syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 0, fd-1, 0)
	}
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, fd+1, 1<<32-1, 0)
}

// sleep sleeps until the child is killed.
//
//go:nosplit
//go:norace
func sleep() {
	for {
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

// Exit ends a child.
//
//go:nosplit
//go:norace
func Exit(status uintptr) {
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, status, 0, 0) // does not return
	}
}
