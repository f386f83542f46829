// SPDX-License-Identifier: Apache-2.0

package timens

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/fork"
)

// Namespace is a time namespace in which there is no process yet.
type Namespace struct {
	child   *fork.Process
	release chan struct{}
	ended   chan error
}

// New makes a time namespace that belongs to a user namespace.
//
// An OCI runtime could make it, too, but crun opens timens_offsets as the container's
// root, which the kernel denies (1.8.4 to 1.29), and knows no offsets before.
func New(userns *os.File, o Offsets) (*Namespace, error) {
	n := &Namespace{release: make(chan struct{}), ended: make(chan error, 1)}
	ready := make(chan struct{})
	go func() {
		// The child dies with this thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := n.start(userns)
		if err == nil {
			err = os.WriteFile(n.child.Path("timens_offsets"), []byte(o.String()), 0)
			if err == nil {
				close(ready)
				<-n.release
			}
			err = errors.Join(err, n.child.End())
		}
		n.ended <- err
	}()
	select {
	case <-ready:
		return n, nil
	case err := <-n.ended:
		return nil, fmt.Errorf("make time namespace: %w", err)
	}
}

// Path is the path of the namespace for a runtime, valid until Close.
func (n *Namespace) Path() string { return n.child.Path("ns/time_for_children") }

// Close ends the process that keeps the namespace.
func (n *Namespace) Close() error {
	close(n.release)
	return <-n.ended
}

// start starts the child, which makes the namespace by unshare(2). With clone3(2) the
// child would be in the namespace, and offsets can be set only while no process is.
func (n *Namespace) start(userns *os.File) error {
	ready, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	defer unix.Close(ready)
	m := &maker{userns: userns.Fd(), ready: uintptr(ready), one: 1}
	// CLONE_FILES: it has no copies of this process's descriptors, so it cannot hold a
	// mount busy or a file lock alive.
	if n.child, err = fork.Start(unix.CLONE_FILES, m.fork); err != nil {
		return err
	}
	runtime.KeepAlive(userns)
	either := []unix.PollFd{{Fd: int32(ready), Events: unix.POLLIN}, {Fd: int32(n.child.PIDFD()), Events: unix.POLLIN}} //nolint:gosec // descriptors
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		_, err = unix.Poll(either, -1)
	}
	if err == nil && either[0].Revents != 0 {
		return nil
	}
	if err == nil {
		var r fork.Result
		if r, err = n.child.Wait(time.Time{}); err == nil {
			err = syscall.Errno(r.Status) //nolint:gosec // an errno
		}
	}
	return errors.Join(explain(err), n.child.End())
}

// explain adds what the administrator can do about it.
func explain(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("the limit in /proc/sys/user/max_time_namespaces is reached, raise it: %w", err)
	}
	return err
}

// maker is what the child needs.
type maker struct {
	userns, ready uintptr
	one           uint64
}

//go:nosplit
//go:norace
func (m *maker) fork(c *fork.Call) {
	if c.InChild() {
		fork.Exit(m.run(c))
	}
}

// run returns an errno, or sleeps until it is killed.
//
//go:nosplit
//go:norace
func (m *maker) run(c *fork.Call) uintptr {
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETNS, m.userns, unix.CLONE_NEWUSER, 0); errno != 0 {
		return uintptr(errno)
	}
	c.DieWithParent()
	if _, _, errno := syscall.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_NEWTIME, 0, 0); errno != 0 {
		return uintptr(errno)
	}
	syscall.RawSyscall(unix.SYS_WRITE, m.ready, uintptr(unsafe.Pointer(&m.one)), unsafe.Sizeof(m.one)) // cannot fail
	for {
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0) // sleeps until killed
	}
}
