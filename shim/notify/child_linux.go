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

	"github.com/isolate-shim/isolate/internal/linux/fork"
	"github.com/isolate-shim/isolate/shim/lxcfs"
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
// First it closes all descriptors that it does not need. So if it hangs in a file
// system of the container, it keeps no lock and no mount of the shim.
type child struct {
	process *fork.Process
	used    time.Duration // processor time, once it has ended
	report  *report       // shared memory
	page    []byte

	// What run reads.
	server  uintptr // a view, by which to ask whether its server lives
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
	fd    uintptr // notOpen if there is no such file system
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

// report is what the child has told so far.
type report struct {
	stage    stage
	errno    int32
	attached int32
}

// newChild prepares everything that run needs, since run allocates nothing and calls
// no function of the Go runtime.
func newChild(t *thread, views []lxcfs.File, address uint64) (*child, error) {
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
		// NO_XDEV: a mount of the inner runtime on a file stays.
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

// start starts the child. The calling goroutine is locked to its thread until wait
// returns.
func (c *child) start() (err error) {
	runtime.LockOSThread()
	if c.process, err = fork.Start(0, c.fork); err != nil {
		runtime.UnlockOSThread()
	}
	return err
}

// wait waits for the end of the child, at most until the deadline. A child that has not
// ended by then is killed, and wait returns false.
func (c *child) wait(deadline time.Time) (ended bool) {
	defer runtime.UnlockOSThread()
	if c.waitUntil(deadline) == nil {
		return true
	}
	c.process.Kill() //nolint:errcheck // nothing else can be done
	return false
}

// reap waits for a killed child. A process whose request a FUSE server has taken ends
// only when the server answers or dies, with the container at the latest.
func (c *child) reap() {
	c.waitUntil(time.Time{}) //nolint:errcheck // nothing else can be done
	c.release()
}

func (c *child) waitUntil(deadline time.Time) error {
	exit, err := c.process.Wait(deadline)
	c.used = exit.Used
	if errors.Is(err, unix.ECHILD) {
		return nil
	}
	return err
}

func (c *child) outcome() (stage, syscall.Errno, int32) {
	return c.report.stage, syscall.Errno(c.report.errno), c.report.attached //nolint:gosec // an errno
}

func (c *child) release() {
	if c.process != nil {
		c.process.Close() //nolint:errcheck // nothing is written to it
	}
	unix.Munmap(c.page) //nolint:errcheck // it is mapped
}
