// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/openat"
)

// target is a file by the directory it is in, and by itself.
type target struct {
	dir  *os.File // O_PATH
	name string
	file *os.File // O_PATH
	stat unix.Stat_t
}

func (t *target) close() {
	t.dir.Close()
	t.file.Close()
}

// proc is a path that leads to the very file, for calls that take no descriptor.
func (t *target) proc() string { return fmt.Sprintf("/proc/self/fd/%d", t.file.Fd()) }

func (t *target) refresh() error {
	if err := unix.Fstat(int(t.file.Fd()), &t.stat); err != nil {
		return &os.PathError{Op: "stat", Path: t.name, Err: err}
	}
	return nil
}

// maxChunk bounds the paths of one look-up: the kernel takes 4096 bytes.
const maxChunk = 3 << 10

// open opens a path below a tree without following links. It answers nil if
// nothing of that type is there.
func open(tree *os.File, path []byte, mode uint32) (*target, error) {
	dirPath, name := []byte("."), string(path)
	if i := bytes.LastIndexByte(path, '/'); i >= 0 {
		dirPath, name = path[:i], string(path[i+1:])
	}
	dir, err := openBelow(tree, dirPath)
	if gone(err) {
		return nil, nil //nolint:nilnil // documented
	}
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		err = errors.Join(&os.PathError{Op: "open", Path: string(path), Err: err}, dir.Close())
		if gone(err) {
			return nil, nil //nolint:nilnil // documented
		}
		return nil, err
	}
	t := &target{dir: dir, name: name, file: os.NewFile(uintptr(fd), string(path))}
	if err := t.refresh(); err != nil {
		t.close()
		return nil, err
	}
	if t.stat.Mode&modeType != mode&modeType {
		t.close()
		return nil, nil //nolint:nilnil // documented
	}
	return t, nil
}

func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// openBelow opens a directory by a path that may be longer than the kernel takes
// at once.
func openBelow(tree *os.File, path []byte) (*os.File, error) {
	fd, err := unix.FcntlInt(tree.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	dir := os.NewFile(uintptr(fd), tree.Name())
	for len(path) > 0 {
		chunk := path
		if len(chunk) > maxChunk {
			// A component has at most 255 bytes.
			chunk = chunk[:bytes.LastIndexByte(chunk[:maxChunk], '/')]
		}
		path = bytes.TrimPrefix(path[len(chunk):], []byte("/"))
		below, err := openat.Open(dir, string(chunk), unix.O_PATH|unix.O_DIRECTORY, openat.Beneath|openat.NoLinks|openat.SameMount)
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir = below
	}
	return dir, nil
}

// apply changes one inode of a journal to what the run wants, and makes its other
// names links to it again. Every step may have been done before.
func (r *run) apply(tree *os.File, e entry) error {
	v := r.shift.inode(e.attributes)
	first, err := open(tree, e.Paths[0], e.Mode)
	if err != nil {
		return err
	}
	if first != nil {
		defer first.close()
		if err := r.set(first, string(e.Paths[0]), v); err != nil {
			return err
		}
	}
	for _, path := range e.Paths[1:] {
		if err := r.again(tree, first, path, v); err != nil {
			return err
		}
	}
	return nil
}

// again makes another name a link to the first one, if the chown of that gave it
// a copy of its own.
func (r *run) again(tree *os.File, first *target, path []byte, v verdict) error {
	t, err := open(tree, path, v.want.Mode)
	if t == nil || err != nil {
		return err
	}
	defer t.close()
	if first != nil && identical(first.stat, t.stat) {
		done, err := relink(first, t)
		if done || err != nil {
			return err
		}
	}
	// It stays a file of its own: the directory is immutable, or there are too
	// many links.
	return r.set(t, string(path), v)
}

// identical tells whether two names are, or were, of one file.
func identical(a, b unix.Stat_t) bool {
	return a.Size == b.Size && a.Mtim == b.Mtim && a.Rdev == b.Rdev && a.Mode&modeType == b.Mode&modeType
}

func same(a, b unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }

// relink puts a link to first in the place of t. Killed half way, it leaves a
// link of another name, which the next call takes or removes.
func relink(first, t *target) (done bool, err error) {
	dirfd := int(t.dir.Fd())
	for n := 0; ; n++ {
		spare := ".isolate-link." + strconv.Itoa(n)
		var there unix.Stat_t
		err := unix.Fstatat(dirfd, spare, &there, unix.AT_SYMLINK_NOFOLLOW)
		exists := err == nil
		if !exists && !errors.Is(err, unix.ENOENT) {
			return false, &os.PathError{Op: "stat", Path: spare, Err: err}
		}
		ours := exists && same(there, first.stat)
		switch {
		case exists && !ours:
			continue // somebody's file
		case same(first.stat, t.stat):
			if ours {
				return true, unix.Unlinkat(dirfd, spare, 0)
			}
			return true, nil
		case !exists:
			checkpoint()
			err := unix.Linkat(int(first.dir.Fd()), first.name, dirfd, spare, 0)
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EXDEV) {
				return false, nil
			}
			if err != nil {
				return false, &os.LinkError{Op: "link", Old: first.name, New: spare, Err: err}
			}
		}
		checkpoint()
		if err := unix.Renameat(dirfd, spare, dirfd, t.name); err != nil {
			return false, errors.Join(&os.LinkError{Op: "rename", Old: spare, New: t.name, Err: err}, unix.Unlinkat(dirfd, spare, 0))
		}
		return true, nil
	}
}

// set gives one inode its owner and then, in the order in which one takes away
// from the other, what it shall have besides. It goes by what is there: a run
// before may have come half way, to this target or to another one.
func (r *run) set(t *target, path string, v verdict) error {
	if r.wary && !v.of(t.stat) {
		return nil
	}
	if t.stat.Uid != v.want.UID || t.stat.Gid != v.want.GID {
		checkpoint()
		if err := unix.Fchownat(int(t.file.Fd()), "", int(v.want.UID), int(v.want.GID), unix.AT_EMPTY_PATH); err != nil {
			return r.refused(int(t.dir.Fd()), t.name, path, err)
		}
	}
	r.report.Moved++
	if t.stat.Mode&modeType == modeSymlink {
		return t.refresh()
	}
	for _, x := range []struct {
		attr  string
		value []byte
	}{{xattrAccess, v.want.Access}, {xattrDefault, v.want.Default}} {
		if err := t.setxattr(x.attr, x.value); err != nil {
			return r.refused(int(t.dir.Fd()), t.name, path, err)
		}
	}
	if err := t.refresh(); err != nil {
		return err
	}
	if t.stat.Mode&modePerm != v.want.Mode&modePerm {
		checkpoint()
		if err := unix.Chmod(t.proc(), v.want.Mode&modePerm); err != nil {
			return r.refused(int(t.dir.Fd()), t.name, path, os.NewSyscallError("chmod", err))
		}
	}
	if err := t.setxattr(xattrCapability, v.want.Capability); err != nil {
		return r.refused(int(t.dir.Fd()), t.name, path, err)
	}
	return t.refresh()
}

// of tells whether a verdict can be of an inode: its owners are those that it had, or is
// to have.
func (v verdict) of(st unix.Stat_t) bool {
	return (st.Uid == v.was.UID || st.Uid == v.want.UID) && (st.Gid == v.was.GID || st.Gid == v.want.GID)
}

// setxattr gives the file an attribute, unless it has that or shall have none.
func (t *target) setxattr(attr string, value []byte) error {
	if value == nil {
		return nil
	}
	have, err := getxattr(t.proc(), attr)
	if err != nil || bytes.Equal(have, value) {
		return os.NewSyscallError("getxattr "+attr, err)
	}
	checkpoint()
	return os.NewSyscallError("setxattr "+attr, unix.Setxattr(t.proc(), attr, value, 0))
}

// sync makes what was done to a file or directory last. Other files are left:
// opening them could do or wait for anything.
func sync(tree *os.File, e entry) error {
	kind := e.Mode & modeType
	for i, path := range e.Paths {
		if i == 0 && kind != modeRegular && kind != modeDir {
			continue
		}
		t, err := open(tree, path, e.Mode)
		if err != nil {
			return err
		}
		if t == nil {
			continue
		}
		dirfd, name := int(t.dir.Fd()), t.name
		if i > 0 {
			name = "." // the link is in its directory
		}
		fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		t.close()
		if err == nil {
			err = unix.Fsync(fd)
			closeFD(fd)
		}
		// Not every file system can sync a file, or has anything to sync.
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EROFS) {
			return &os.PathError{Op: "fsync", Path: string(path), Err: err}
		}
	}
	return nil
}
