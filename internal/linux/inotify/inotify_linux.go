// SPDX-License-Identifier: Apache-2.0

// Package inotify tells what is made in directories (inotify(7)).
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

// Watch is a watch on directories. Events are those of the inode, so it does not matter by
// which mount of its file system something is made.
type Watch struct {
	fd   int
	file *os.File // the same
	all  bool     // not directories alone
}

// Directories watches a directory for directories that are made in it. The watch counts as
// user's (fs.inotify in proc(5)), of whom there may be one or two for each container: a
// user has no more than 128.
func Directories(dir string, user uint32) (*Watch, error) {
	return watch(user, unix.IN_CREATE, dir)
}

// Entries watches directories, of which some may be the same, for whatever is made in them
// or moved there. It counts like [Directories].
func Entries(dirs []string, user uint32) (*Watch, error) {
	w, err := watch(user, unix.IN_CREATE|unix.IN_MOVED_TO, dirs...)
	if err == nil {
		w.all = true
	}
	return w, err
}

func watch(user, mask uint32, dirs ...string) (*Watch, error) {
	fd := -1
	err := thread.AsEffectiveUser(user, func() (err error) {
		if fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
			return full("inotify_init1", err, unix.EMFILE, "fs.inotify.max_user_instances")
		}
		for _, dir := range dirs {
			if _, err := unix.InotifyAddWatch(fd, dir, mask|unix.IN_ONLYDIR); err != nil {
				return full("inotify_add_watch", err, unix.ENOSPC, "fs.inotify.max_user_watches")
			}
		}
		return nil
	})
	if err != nil {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, fmt.Errorf("watch %q: %w", dirs, err)
	}
	return &Watch{fd: fd, file: os.NewFile(uintptr(fd), "inotify")}, nil
}

// full names the limit of a user that an error of a call comes from.
func full(call string, err, symptom error, sysctl string) error {
	if named := os.NewSyscallError(call, err); !errors.Is(err, symptom) {
		return named
	}
	return fmt.Errorf("%s: %w: raise %s (sysctl)", call, err, sysctl)
}

// Next waits until something is made, and returns the names, "" for some that the kernel
// has not kept. It answers an error that matches os.ErrDeadlineExceeded after
// [Watch.Interrupt].
func (w *Watch) Next() ([]string, error) {
	buf := make([]byte, 16<<10)
	n, err := w.file.Read(buf)
	if err != nil {
		return nil, err
	}
	return parse(buf[:n], w.all)
}

// Pending is Next that does not wait. It may be called after Interrupt.
func (w *Watch) Pending() (names []string, err error) {
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Read(w.fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return names, nil
		}
		if err != nil {
			return names, os.NewSyscallError("read", err)
		}
		more, err := parse(buf[:n], w.all)
		names = append(names, more...)
		if err != nil {
			return names, err
		}
	}
}

// Interrupt ends a Next, and all later ones.
func (w *Watch) Interrupt() error { return w.file.SetReadDeadline(time.Unix(1, 0)) }

// Close ends the watch. The kernel takes some 20 ms to be through with that, for which
// nobody has to wait.
func (w *Watch) Close() {
	go w.file.Close()
}

// errUnwatched says that the directory is gone, or its file system.
var errUnwatched = errors.New("the watched directory is not there any more")

// parse returns names of directories, or all: then there are other directories if one is
// gone.
func parse(events []byte, all bool) (names []string, err error) {
	for len(events) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(events[4:])
		size := int(binary.NativeEndian.Uint32(events[12:]))
		name := unix.ByteSliceToString(events[unix.SizeofInotifyEvent:][:size])
		events = events[unix.SizeofInotifyEvent+size:]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			names = append(names, "")
		case mask&unix.IN_IGNORED != 0:
			if !all {
				err = errUnwatched
			}
		case all || mask&unix.IN_ISDIR != 0:
			names = append(names, name)
		}
	}
	return names, err
}
