// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// visitor is called for each group of a tree. The group is the entry name of the
// directory at: "." for the top, and for all others a name without a slash. If enter or
// leave returns an error that is gone, the group counts as removed.
type visitor struct {
	// enter is called before the groups below, leave after them. Either may be nil.
	enter, leave func(at int, name string) error
	// skip tells whether to leave out a group and all groups below; nil leaves out none.
	skip func(unix.Stat_t) bool
}

// level is a directory on the way down to the current one.
type level struct {
	name string
	ino  uint64
	rest []string // groups in it that are still to be visited
}

// walk visits a group and all groups below it. It holds one descriptor, for the current
// directory, and the names that it still has to visit on the levels above, which take a
// small part of the memory that the kernel has for these groups.
func walk(ctx context.Context, top *os.File, v visitor) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(top.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := v.call(v.enter, int(top.Fd()), "."); err != nil {
		return err
	}
	here, err := unix.Openat(int(top.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ignoreGone(os.NewSyscallError("openat", err))
	}
	w := &walker{here: here, dev: st.Dev, visitor: v}
	defer func() { unix.Close(w.here) }()
	if err := w.push(".", st); err != nil {
		return err
	}
	for len(w.way) > 0 {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%d levels below %s: %w", len(w.way)-1, top.Name(), err)
		}
		if err := w.step(); err != nil {
			return err
		}
	}
	return v.call(v.leave, int(top.Fd()), ".")
}

func (v visitor) call(fn func(int, string) error, at int, name string) error {
	if fn == nil {
		return nil
	}
	return ignoreGone(fn(at, name))
}

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// walker is somewhere in a tree.
type walker struct {
	visitor
	here int // the current directory
	dev  uint64
	way  []level
}

// step visits one group, or goes up one level.
func (w *walker) step() error {
	l := &w.way[len(w.way)-1]
	if len(l.rest) == 0 {
		return w.up()
	}
	name := l.rest[0]
	l.rest = l.rest[1:]
	var st unix.Stat_t
	err := unix.Fstatat(w.here, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
	switch {
	case gone(err):
		return nil
	case err != nil:
		return os.NewSyscallError("fstatat", err)
	case st.Dev != w.dev: // something is mounted there
		return nil
	case w.skip != nil && w.skip(st):
		return nil
	}
	if err := w.call(w.enter, w.here, name); err != nil {
		return err
	}
	// A directory of kernfs has two links, and one for each directory in it
	// (fs/kernfs/inode.c: kernfs_refresh_inode). Most groups have none.
	if st.Nlink <= 2 {
		return w.call(w.leave, w.here, name)
	}
	return w.down(name, st)
}

// down makes a group the current directory.
func (w *walker) down(name string, want unix.Stat_t) error {
	fd, err := unix.Openat(w.here, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return ignoreGone(os.NewSyscallError("openat", err))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ignoreGone(errors.Join(os.NewSyscallError("fstat", err), unix.Close(fd)))
	}
	if st.Dev != w.dev || st.Ino != want.Ino { // another one by now
		return unix.Close(fd)
	}
	unix.Close(w.here)
	w.here = fd
	return w.push(name, st)
}

// up makes the parent the current directory, and leaves the group.
func (w *walker) up() error {
	done := w.way[len(w.way)-1]
	w.way = w.way[:len(w.way)-1]
	if len(w.way) == 0 {
		return nil
	}
	fd, err := unix.Openat(w.here, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	unix.Close(w.here)
	w.here = fd
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Dev != w.dev || st.Ino != w.way[len(w.way)-1].ino {
		return errors.New("the parent of a group is another one than before")
	}
	return w.call(w.leave, w.here, done.name)
}

// push lists the groups in the current directory.
func (w *walker) push(name string, st unix.Stat_t) error {
	l := level{name: name, ino: st.Ino}
	if st.Nlink > 2 {
		fd, err := unix.Openat(w.here, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil && !gone(err) {
			return os.NewSyscallError("openat", err)
		}
		if err == nil {
			if l.rest, err = directories(os.NewFile(uintptr(fd), name)); ignoreGone(err) != nil {
				return err
			}
		}
	}
	w.way = append(w.way, l)
	return nil
}

// directories lists the directories in a directory, and closes it.
func directories(dir *os.File) ([]string, error) {
	entries, err := dir.ReadDir(-1)
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, errors.Join(err, dir.Close())
}
