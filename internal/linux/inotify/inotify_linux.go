// SPDX-License-Identifier: Apache-2.0

// Package inotify tells which directories are made in a directory (inotify(7)).
package inotify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/thread"
)

// Directories is a watch on one directory. Events are those of the inode, so it does not
// matter by which mount of its file system something is made.
type Directories struct {
	fd   int
	file *os.File // the same
}

// New watches a directory. The watch counts as user's (fs.inotify in proc(5)), of whom
// there may be one for each container: a user has no more than 128.
func New(dir string, user uint32) (*Directories, error) {
	fd := -1
	err := thread.AsEffectiveUser(user, func() (err error) {
		if fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
			return os.NewSyscallError("inotify_init1", err)
		}
		_, err = unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_ONLYDIR)
		return os.NewSyscallError("inotify_add_watch", err)
	})
	if err != nil {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, fmt.Errorf("watch %q: %w", dir, err)
	}
	return &Directories{fd: fd, file: os.NewFile(uintptr(fd), "inotify:"+dir)}, nil
}

// Next waits until something is made, and returns the names of the directories among that,
// "" for some that the kernel has not kept. It answers an error that matches
// os.ErrDeadlineExceeded after [Directories.Interrupt].
func (d *Directories) Next() ([]string, error) {
	buf := make([]byte, 16<<10)
	n, err := d.file.Read(buf)
	if err != nil {
		return nil, err
	}
	return parse(buf[:n])
}

// Pending is Next that does not wait. It may be called after Interrupt.
func (d *Directories) Pending() (names []string, err error) {
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Read(d.fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return names, nil
		}
		if err != nil {
			return names, os.NewSyscallError("read", err)
		}
		more, err := parse(buf[:n])
		names = append(names, more...)
		if err != nil {
			return names, err
		}
	}
}

// Interrupt ends a Next, and all later ones.
func (d *Directories) Interrupt() error { return d.file.SetReadDeadline(time.Unix(1, 0)) }

// Close ends the watch.
func (d *Directories) Close() error { return d.file.Close() }

// errUnwatched says that the directory is gone, or its file system.
var errUnwatched = errors.New("the watched directory is not there any more")

func parse(events []byte) (names []string, err error) {
	for len(events) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(events[4:])
		size := int(binary.NativeEndian.Uint32(events[12:]))
		name := unix.ByteSliceToString(events[unix.SizeofInotifyEvent:][:size])
		events = events[unix.SizeofInotifyEvent+size:]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			names = append(names, "")
		case mask&unix.IN_IGNORED != 0:
			err = errUnwatched
		case mask&unix.IN_ISDIR != 0:
			names = append(names, name)
		}
	}
	return names, err
}
