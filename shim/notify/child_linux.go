// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxViews bounds the views of one graft; lxcfs 6 serves 12 files.
const maxViews = 64

// child is a process that grafts and ends. It is a copy of the shim that runs no
// Go code but [child.run], which is made of raw system calls:
//
//   - A process and not a thread, because setns(2) refuses a user namespace to
//     processes of several threads, and because a process can be killed.
//   - A copy and not a new program, because starting one takes longer than the
//     whole rest: about 0.5 ms against 20 ms.
//
// It closes all descriptors but those it needs first, so that when it hangs in
// a file system of the container, it keeps no lock and no mount of the shim.
type child struct {
	args   cloneArgs
	raw    int32 // written by clone3
	pidfd  *os.File
	used   time.Duration // processor time, once it has ended
	parent uintptr
	report *report // shared memory
	page   []byte

	// What run reads.
	server  uintptr // a view, to ask whether its server lives
	memory  uintptr
	address uintptr
	userns  uintptr
	mntns   uintptr
	root    uintptr
	cwd     uintptr
	gaps    [maxViews + 8][2]uintptr // ranges of descriptors to close
	gapN    int
	tops    [2]top
	topN    int
	grafts  [maxViews]place
	graftN  int

	// What run writes.
	path   [4096]byte
	anyHow unix.OpenHow // for the new root
	topHow unix.OpenHow // for /proc and /sys on it
	how    unix.OpenHow // for files on those
	statfs unix.Statfs_t
	statx  [2]unix.Statx_t
	dot    [2]byte
	empty  [1]byte
}

// top is a file system on the new root.
type top struct {
	name  [8]byte
	magic int64
	fd    uintptr // notOpen unless it is there
}

// place is where one view goes.
type place struct {
	top  int
	name [128]byte
	view uintptr
}

const notOpen = ^uintptr(0)

// stage is how far a child has come.
type stage int32

const (
	stageServer    stage = iota // asks the server of the views for a sign of life
	stageArgument               // reads the path from the caller's memory
	stageNamespace              // enters the namespaces
	stageRoot                   // opens the new root
	stageFiles                  // opens and attaches
	stageNothing                // ended: neither procfs nor sysfs there
	stageDone                   // ended
)

func (s stage) String() string {
	return [...]string{
		"ask the server of the views", "read the argument", "enter the namespaces",
		"open the new root", "attach the views", "nothing", "done",
	}[s]
}

// report is what the child tells, at any time.
type report struct {
	stage    stage
	errno    int32
	attached int32
}

// cloneArgs is struct clone_args of clone3(2), first version.
type cloneArgs struct {
	flags, pidFD, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
}

// newChild prepares everything: run allocates nothing and calls no function of
// the Go runtime.
func newChild(t *thread, views []View, address uint64) (*child, error) {
	c := &child{
		address: uintptr(address), memory: notOpen, server: notOpen,
		userns: t.userns.Fd(), mntns: t.mntns.Fd(), root: t.root.Fd(), cwd: t.cwd.Fd(),
		dot: [2]byte{'.'},
		anyHow: unix.OpenHow{
			Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS,
		},
		topHow: unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		},
		// NO_XDEV: what the inner runtime mounted on a file stays.
		how: unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
		},
	}
	keep := []uintptr{c.userns, c.mntns, c.root, c.cwd}
	if t.memory != nil {
		c.memory = t.memory.Fd()
		keep = append(keep, c.memory)
	}
	for _, v := range views {
		name, rest, magic, ok := split(v.Name)
		if !ok || len(rest) >= len(place{}.name) || c.graftN == maxViews {
			return nil, fmt.Errorf("view %q has no place", v.Name)
		}
		p := place{top: c.top(name, magic), view: v.Mount.Fd()}
		copy(p.name[:], rest)
		c.grafts[c.graftN] = p
		c.graftN++
		c.server = p.view
		keep = append(keep, p.view)
	}
	slices.Sort(keep)
	first := uintptr(0)
	for _, fd := range append(keep, notOpen) {
		if fd > first {
			c.gaps[c.gapN] = [2]uintptr{first, min(fd-1, 1<<32-1)}
			c.gapN++
		}
		first = fd + 1
	}
	var err error
	c.page, err = unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	c.report = (*report)(unsafe.Pointer(&c.page[0]))
	return c, nil
}

func (c *child) top(name string, magic int64) int {
	for i := range c.topN {
		if string(c.tops[i].name[:len(name)]) == name {
			return i
		}
	}
	t := top{magic: magic, fd: notOpen}
	copy(t.name[:], name)
	c.tops[c.topN] = t
	c.topN++
	return c.topN - 1
}

// start starts the child. The thread stays the caller's until wait returns: the
// child dies with it.
//
//   - Exit signal 0: no SIGCHLD, and a reaper that waits for every child (each
//     shim has one) does not see it.
//   - All signals are blocked: their handlers are Go's.
func (c *child) start() error {
	runtime.LockOSThread()
	c.parent = uintptr(unix.Getpid())
	forked, err := withoutSignals(c.fork)
	if !forked {
		runtime.UnlockOSThread()
		return err
	}
	pidfd := int(c.raw)
	err = errors.Join(err, os.NewSyscallError("fcntl", unix.SetNonblock(pidfd, true)))
	if err == nil {
		c.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
		return nil
	}
	runtime.UnlockOSThread()
	go func() { // it may be waiting for a server already
		unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)                  //nolint:errcheck // ESRCH: it has ended
		unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED|unix.WALL, nil) //nolint:errcheck // nothing else can be done
		unix.Close(pidfd)                                                  //nolint:errcheck // nothing is written to it
	}()
	return err
}

// withoutSignals calls a function that forks, with all signals blocked in the
// thread, which must be locked.
func withoutSignals(fork func() (uintptr, syscall.Errno)) (forked bool, _ error) {
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return false, fmt.Errorf("block signals: %w", err)
	}
	_, errno := fork()
	err := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	if err != nil {
		err = fmt.Errorf("unblock signals: %w", err)
	}
	if errno != 0 {
		return false, errors.Join(os.NewSyscallError("clone3", errno), err)
	}
	return true, err
}

// wait waits for the end of the child, at most until the deadline; then it kills
// it and tells that it has not ended.
func (c *child) wait(deadline time.Time) (ended bool) {
	defer runtime.UnlockOSThread()
	if c.pidfd.SetReadDeadline(deadline) == nil && c.waitid() == nil {
		return true
	}
	unix.PidfdSendSignal(int(c.pidfd.Fd()), unix.SIGKILL, nil, 0) //nolint:errcheck // ESRCH: it has ended
	return false
}

// reap waits for a killed child. A process that waits for a FUSE server that has
// taken its request ends only when that answers or dies, with the container at
// the latest.
func (c *child) reap() {
	if c.pidfd.SetReadDeadline(time.Time{}) == nil {
		c.waitid() //nolint:errcheck // nothing else can be done
	}
	c.release()
}

func (c *child) waitid() error {
	raw, err := c.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var waitErr error
	var usage unix.Rusage
	err = raw.Read(func(fd uintptr) bool {
		// The pidfd is not blocking: EAGAIN while the child runs.
		waitErr = unix.Waitid(unix.P_PIDFD, int(fd), nil, unix.WEXITED|unix.WALL, &usage)
		return !errors.Is(waitErr, unix.EAGAIN) && !errors.Is(waitErr, unix.EINTR)
	})
	c.used = consumed(&usage)
	// ECHILD: somebody waits for really every child.
	if err == nil && waitErr != nil && !errors.Is(waitErr, unix.ECHILD) {
		return waitErr
	}
	return err
}

func (c *child) outcome() (stage, syscall.Errno, int32) {
	return c.report.stage, syscall.Errno(c.report.errno), c.report.attached //nolint:gosec // an errno
}

func (c *child) release() {
	if c.pidfd != nil {
		c.pidfd.Close() //nolint:errcheck // nothing is written to it
	}
	unix.Munmap(c.page) //nolint:errcheck // it is mapped
}
