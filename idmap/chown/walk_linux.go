// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/openat"
)

const (
	// maxOpen bounds how many directories are open at a time. A container can
	// have made a tree of any depth.
	maxOpen = 128
	// aliveEvery is how many inodes are looked at before the next look at the
	// clock.
	aliveEvery = 64
	// perName is what a name costs beside its bytes, about.
	perName = 64
)

// maxHeld bounds the bytes of names that are in memory at a time: those of
// directories to be read yet, of files with several names, and of those that need
// more than a chown. The container may have made any number of them.
var maxHeld = 128 << 20

// errTooMany says what to do instead.
var errTooMany = errors.New("it has more directories or hard links than are moved on disk; remove some, or use a kernel and a file system that can id-map it")

// walker looks at every name below a directory, moves what needs nothing but a
// chown, and collects the rest.
//
// No process runs in the tree while it is walked. But a container has made the tree,
// so each name is looked up in its directory's descriptor, and no link is followed.
type walker struct {
	*run
	entries []entry
	links   map[link]int // to the index in entries
	stack   []frame
	path    []byte // of the directory that is being read, empty for the root
	held    int
	buf     []byte // for entries of directories
	xattrs  []byte
}

// link is a file with more than one name. Its id of the device matters: on an
// overlay the layers may be on several.
type link struct{ dev, ino uint64 }

// frame is a directory on the way to the one that is being read.
type frame struct {
	fd       int // -1 if it was closed
	dev, ino uint64
	path     int      // length of its path
	subdirs  []string // to be read yet
}

func (w *walker) walk(tree *os.File) error {
	w.buf, w.xattrs = make([]byte, 32<<10), make([]byte, 1<<10)
	defer func() {
		for _, f := range w.stack {
			closeFD(f.fd)
		}
	}()
	root, err := openDir(int(tree.Fd()), ".")
	if err != nil {
		return err
	}
	if err := unix.Fchdir(root); err != nil {
		closeFD(root)
		return os.NewSyscallError("fchdir", err)
	}
	if _, err := w.visit(root, "."); err != nil {
		closeFD(root)
		return err
	}
	if err := w.enter(root); err != nil {
		return err
	}
	for len(w.stack) > 0 {
		if err := w.next(); err != nil {
			return err
		}
	}
	return nil
}

// next reads the next directory below the innermost one, or leaves that.
func (w *walker) next() error {
	top := &w.stack[len(w.stack)-1]
	if len(top.subdirs) == 0 {
		return w.leave()
	}
	name := top.subdirs[len(top.subdirs)-1]
	top.subdirs = top.subdirs[:len(top.subdirs)-1]
	w.path = w.path[:top.path]
	fd, err := openDir(top.fd, name)
	if w.running && gone(err) {
		w.held -= len(name) + perName
		return nil
	}
	if err != nil {
		return fmt.Errorf("open directory %q: %w", w.name(name), err)
	}
	w.held -= len(name) + perName
	if len(w.path) > 0 {
		w.path = append(w.path, '/')
	}
	w.path = append(w.path, name...)
	if len(w.stack) >= maxOpen {
		far := &w.stack[len(w.stack)-maxOpen]
		closeFD(far.fd)
		far.fd = -1
	}
	return w.enter(fd)
}

// enter visits everything in a directory, which it owns from here on.
func (w *walker) enter(fd int) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil {
		err = unix.Fchdir(fd)
	}
	w.stack = append(w.stack, frame{fd: fd, dev: st.Dev, ino: st.Ino, path: len(w.path)})
	if err != nil {
		return fmt.Errorf("enter directory %q: %w", w.name("."), err)
	}
	var subdirs, names []string
	for {
		n, err := unix.ReadDirent(fd, w.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read directory %q: %w", w.name("."), err)
		}
		if n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(w.buf[:n], -1, names[:0])
		for _, name := range names {
			dir, err := w.visit(fd, name)
			if err != nil {
				return err
			}
			if !dir {
				continue
			}
			subdirs = append(subdirs, name)
			if err := w.hold(len(name)); err != nil {
				return err
			}
		}
	}
	w.stack[len(w.stack)-1].subdirs = subdirs
	return nil
}

// leave goes back to the directory above, which may have to be opened again: by
// "..", if that is still what it was.
func (w *walker) leave() error {
	top := w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	defer closeFD(top.fd)
	if len(w.stack) == 0 {
		return nil
	}
	up := &w.stack[len(w.stack)-1]
	if up.fd >= 0 {
		return nil
	}
	fd, err := unix.Openat(top.fd, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("leave directory %q: %w", w.path[:top.path], err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Dev != up.dev || st.Ino != up.ino {
		closeFD(fd)
		return errors.Join(fmt.Errorf("leave directory %q: it was moved meanwhile", w.path[:top.path]), err)
	}
	up.fd = fd
	return nil
}

// visit looks at one name in the working directory, and tells whether it is a
// directory.
func (w *walker) visit(dirfd int, name string) (dir bool, err error) {
	if w.report.Inodes++; w.report.Inodes%aliveEvery == 0 {
		if err := w.alive(); err != nil {
			return false, err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT); err != nil {
		if w.running && gone(err) {
			return false, nil
		}
		return false, &os.PathError{Op: "stat", Path: w.name(name), Err: err}
	}
	a := attributes{Mode: st.Mode & (modeType | modePerm), UID: st.Uid, GID: st.Gid}
	dir = a.Mode&modeType == modeDir
	if err := w.attributes(name, &a); err != nil {
		if w.running && gone(err) {
			return false, nil
		}
		return dir, err
	}
	v := w.shift.inode(a)
	if v.left || len(v.strange) > 0 {
		w.note(w.name(name), a, v)
	}
	switch {
	case !v.moved():
		return dir, nil
	case !dir && st.Nlink > 1:
		w.collectLink(link{st.Dev, st.Ino}, name, a)
		return dir, w.hold(len(w.path) + len(name))
	case w.running || !v.plain():
		w.entries = append(w.entries, entry{Paths: [][]byte{[]byte(w.name(name))}, attributes: a})
		return dir, w.hold(len(w.path) + len(name))
	}
	checkpoint()
	if err := unix.Fchownat(dirfd, name, int(v.want.UID), int(v.want.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return dir, w.refused(dirfd, name, w.name(name), err)
	}
	w.report.Moved++
	return dir, nil
}

// hold counts a name that is kept.
func (w *walker) hold(size int) error {
	if w.held += size + perName; w.held > maxHeld {
		return errTooMany
	}
	return nil
}

// collectLink adds a name to its file.
func (w *walker) collectLink(l link, name string, a attributes) {
	path := []byte(w.name(name))
	if i, ok := w.links[l]; ok {
		w.entries[i].Paths = append(w.entries[i].Paths, path)
		return
	}
	w.links[l] = len(w.entries)
	w.entries = append(w.entries, entry{Paths: [][]byte{path}, attributes: a})
}

// attributes reads the extended attributes that hold ids. Links have none, and
// most inodes have no attribute at all, which one call tells.
func (w *walker) attributes(name string, a *attributes) error {
	if a.Mode&modeType == modeSymlink {
		return nil
	}
	n, err := unix.Llistxattr(name, w.xattrs)
	for errors.Is(err, unix.ERANGE) {
		w.xattrs = make([]byte, 2*len(w.xattrs))
		n, err = unix.Llistxattr(name, w.xattrs)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "llistxattr", Path: w.name(name), Err: err}
	}
	if n == 0 {
		return nil
	}
	found := map[string]*[]byte{}
	for list := w.xattrs[:n]; len(list) > 0; {
		attr := unix.ByteSliceToString(list)
		list = list[min(len(attr)+1, len(list)):]
		switch attr {
		case xattrCapability:
			found[attr] = &a.Capability
		case xattrAccess:
			found[attr] = &a.Access
		case xattrDefault:
			found[attr] = &a.Default
		}
	}
	for attr, value := range found {
		// Not a link, and nobody can make it one.
		if *value, err = getxattr(name, attr); err != nil {
			return &os.PathError{Op: "getxattr " + attr, Path: w.name(name), Err: err}
		}
	}
	return nil
}

// getxattr returns the value of an attribute, nil if there is none or if it is
// empty, which holds no id.
func getxattr(path, attr string) ([]byte, error) {
	for size := 256; ; size *= 4 {
		value := make([]byte, size)
		n, err := unix.Getxattr(path, attr, value)
		switch {
		case err == nil && n > 0:
			return value[:n], nil
		case err == nil, errors.Is(err, unix.ENODATA):
			return nil, nil
		case !errors.Is(err, unix.ERANGE):
			return nil, err
		}
	}
}

// name is a path below the root.
func (w *walker) name(name string) string {
	if len(w.path) == 0 {
		return name
	}
	return string(w.path) + "/" + name
}

// openDir opens a directory that is one component below another, on the same
// mount, and leaves its time of access alone.
func openDir(dirfd int, name string) (int, error) {
	return openat.FD(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NOATIME, openat.Beneath|openat.NoLinks|openat.SameMount)
}

func closeFD(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}
