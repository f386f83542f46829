// SPDX-License-Identifier: Apache-2.0

package lxcfs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/disposable"
	linuxmount "github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/openat"
)

// childName is argv[0] of the disposable process that probes a mount.
const childName = "isolate-lxcfs-probe"

// MaybeChild must be the first call of main in every program that uses this
// package: if the process is the disposable child, it does its work and does not
// return.
func MaybeChild() {
	if len(os.Args) > 0 && os.Args[0] == childName {
		os.Exit(child(os.Args[1:]))
	}
}

// child probes one mount: args are its mount point, its mount id and the time after
// which nobody listens any more. The exit status is for a human.
func child(args []string) int {
	if len(args) != 3 {
		return 2
	}
	id, err := strconv.Atoi(args[1])
	limit, lerr := time.ParseDuration(args[2])
	if err != nil || lerr != nil {
		return 2
	}
	// The parent kills a late child; this is for a parent that is gone. A
	// thread that waits in FUSE outlives even this.
	time.AfterFunc(limit, func() { os.Exit(3) })
	l := prober{socket: disposable.SocketFD, blkio: blkio()}
	last := message{End: true}
	if err := l.probe(mount{Root: args[0], ID: id}); err != nil {
		last.Failed = err.Error()
		errors.As(err, &last.Errno)
		last.Hidden = errors.Is(err, errHidden)
	}
	if err := l.send(last, -1); err != nil {
		return 1
	}
	return 0
}

// errHidden means that the path leads to another mount than the one to be probed.
var errHidden = errors.New("another file system is mounted over it")

// prober lists the files of an lxcfs and sends what it finds.
type prober struct {
	socket int
	root   *os.File // the mount's
	files  int
	blkio  bool // the host has that controller in a hierarchy of version 1
}

func (l *prober) probe(m mount) error {
	fd, err := unix.Open(m.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open mount point: %w", err)
	}
	l.root = os.NewFile(uintptr(fd), m.Root)
	defer l.root.Close()
	// DONT_SYNC: the kernel knows the mount's id without asking the server.
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil {
		return fmt.Errorf("stat mount point: %w", err)
	}
	if st.Mask&unix.STATX_MNT_ID != 0 && int(st.Mnt_id) != m.ID {
		return errHidden
	}
	// Of a dead server nothing is looked up. The kernel would take the names for
	// stale and detach all that is mounted on those files, in every container
	// (d_invalidate); also what a container's root has put there.
	if err := Ask(l.root); err != nil {
		return fmt.Errorf("ask for a sign of life: %w", err)
	}
	if err := l.walk("proc", 2); err != nil {
		return err
	}
	// Older servers have no CPU view.
	if err := l.file(cpuOnline); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// blkio tells whether the blkio controller is in a hierarchy of cgroup v1: then
// this process is in a group of it. What cannot be read counts as yes.
func blkio() bool {
	groups, err := os.ReadFile("/proc/self/cgroup")
	return err != nil || regexp.MustCompile(`(?m)^\d+:([^:]*,)?blkio(,[^:]*)?:`).Match(groups)
}

// walk visits the files below a directory; depth bounds how far down.
func (l *prober) walk(dir string, depth int) error {
	f, err := l.open(dir, unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	entries, err := f.ReadDir(4 * maxFiles)
	f.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		switch {
		case e.IsDir() && depth > 1:
			err = l.walk(name, depth-1)
		case e.Type().IsRegular() && servable(name) && !withheld(name, l.blkio) && l.files < maxFiles:
			err = l.file(name)
		default:
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// file sends one file, or says why not. Its error ends the probe: the file does not
// exist (which only matters for a name that was not listed), the server is gone, or
// nobody listens.
//
// Until one file could be read, a little of each is read: a server can be mounted and
// dead, or answer and refuse. A server that lets one file be read lets all be read,
// and reading takes most of the time of a probe.
func (l *prober) file(name string) error {
	flags := unix.O_PATH
	if l.files == 0 {
		flags = 0
	}
	f, err := l.open(name, flags)
	if err == nil {
		defer f.Close()
		if l.files == 0 {
			_, err = f.Read(make([]byte, 64))
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	var tree *os.File
	if err == nil {
		tree, err = detach(f)
	}
	if err != nil {
		var no syscall.Errno
		if !errors.As(err, &no) || IsDead(no) || no == unix.ENOENT {
			return fmt.Errorf("read %s: %w", name, err)
		}
		return l.send(message{Skip: name, Errno: no}, -1)
	}
	defer tree.Close()
	l.files++
	return l.send(message{File: name}, int(tree.Fd()))
}

// open opens a file of lxcfs, and nothing that is mounted over it or to which a link
// leads. It does not wait for the writer of a FIFO.
func (l *prober) open(name string, flags int) (*os.File, error) {
	if flags&unix.O_PATH == 0 {
		flags |= unix.O_RDONLY | unix.O_NONBLOCK
	}
	return openat.Open(l.root, name, flags, openat.Beneath|openat.NoLinks|openat.SameMount)
}

// detach clones the mount of an open file. The clone belongs to no peer group, so that
// nothing done to lxcfs' own mount spreads to it. It cannot be used to write or
// execute, since lxcfs has files for neither.
func detach(f *os.File) (*os.File, error) {
	return linuxmount.CloneTree(int(f.Fd()), "", linuxmount.CloneOptions{
		SetAttrs:    unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
		Propagation: unix.MS_PRIVATE,
	})
}

// send sends a message, with a descriptor if there is one.
func (l *prober) send(m message, fd int) error {
	data, err := m.encode()
	if err != nil {
		return err
	}
	return disposable.Send(l.socket, data, fd)
}
