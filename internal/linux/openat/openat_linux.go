// SPDX-License-Identifier: Apache-2.0

// Package openat opens files beneath a directory that another process can change at the
// same time.
package openat

import (
	"errors"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// How a path is resolved (openat2(2), Linux 5.6). Magic links can lead anywhere and are
// never followed.
const (
	// Beneath refuses a path that leads out of the directory.
	Beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS
	// InRoot takes the directory for the root, as chroot(2) does.
	InRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	// NoLinks refuses symbolic links as well.
	NoLinks = unix.RESOLVE_NO_SYMLINKS
	// SameMount refuses to pass a mount point.
	SameMount = unix.RESOLVE_NO_XDEV
)

// patience bounds the wait for a quiet moment. One attempt takes microseconds.
const patience = 2 * time.Second

// Open opens path beneath dir. It takes the flags of open(2), and adds O_CLOEXEC.
//
// If the kernel resolves ".." while anything on the machine is renamed or mounted, it
// answers EAGAIN, since it cannot prove that the path has stayed inside. That says
// nothing about the file. Open tries again, and gives up with that error after two
// seconds.
func Open(dir *os.File, path string, flags int, resolve uint64) (*os.File, error) {
	fd, err := FD(int(dir.Fd()), path, flags, resolve)
	runtime.KeepAlive(dir)
	name := dir.Name() + "/" + path
	if err != nil {
		return nil, &os.PathError{Op: "openat2", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// FD is [Open] for a descriptor without an [os.File]; the error is a bare errno.
func FD(dirfd int, path string, flags int, resolve uint64) (int, error) {
	how := &unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: resolve} //nolint:gosec // flags of open(2) are positive
	if flags&unix.O_CREAT != 0 || flags&unix.O_TMPFILE == unix.O_TMPFILE {
		how.Mode = 0o600
	}
	var deadline time.Time
	for {
		fd, err := unix.Openat2(dirfd, path, how)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			if deadline.IsZero() {
				deadline = time.Now().Add(patience)
			}
			if time.Now().Before(deadline) {
				runtime.Gosched()
				continue
			}
		}
		return fd, err
	}
}
