// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/eintr"
	"github.com/isolate-shim/isolate/internal/linux/feature"
	"github.com/isolate-shim/isolate/internal/linux/userns"
)

// moveMountBeneath is MOVE_MOUNT_BENEATH of <linux/mount.h> (Linux 6.5).
const moveMountBeneath = 0x200

// CloneOptions say what a clone looks like. Attributes are MOUNT_ATTR_* of
// mount_setattr(2).
type CloneOptions struct {
	// Recursive takes the mounts below along, and gives all of them the same
	// attributes, propagation and mapping.
	Recursive bool
	// Userns is the namespace whose mapping the clone gets; nil for none.
	Userns *os.File
	// SetAttrs and ClearAttrs change mount attributes. What is set here, by the
	// initial user namespace, is locked for every user namespace that gets a
	// copy: MOUNT_ATTR_RDONLY cannot be removed by a container's root
	// (mount_namespaces(7), "locked").
	SetAttrs, ClearAttrs uint64
	// Propagation is unix.MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE; 0
	// keeps the source's.
	Propagation uint64
}

func (o CloneOptions) attr() *unix.MountAttr {
	attr := &unix.MountAttr{Attr_set: o.SetAttrs, Attr_clr: o.ClearAttrs, Propagation: o.Propagation}
	if o.Userns != nil {
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(o.Userns.Fd())
	}
	return attr
}

// CloneTree returns a detached copy of the mount at path (like a bind mount that
// is attached nowhere), with the given attributes and mapping (open_tree(2),
// mount_setattr(2); before Linux 5.12 there are no mappings, and attributes are
// set by mount(2) in a mount namespace that nobody else sees). dirfd is the directory a relative path starts
// from, -1 for none; with an empty path it is the source itself. Closing the
// file before it was attached makes the clone vanish.
//
// An error that matches [ErrNotIDMappable] means that this file system, or one
// below it, takes no mapping. EPERM with a mapping means that the source is
// id-mapped already, or that CAP_SYS_ADMIN is missing.
func CloneTree(dirfd int, path string, o CloneOptions) (*os.File, error) {
	name := describe(dirfd, path)
	tree, err := openTree(dirfd, path, name, o.Recursive)
	if err != nil {
		return nil, fmt.Errorf("clone mount %q: %w", name, err)
	}
	err = setAttr(tree, name, o)
	if o.Userns == nil && errors.Is(err, feature.ErrNotSupported) {
		return setClassic(tree, name, o)
	}
	if err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	return tree, nil
}

// TakeOut is CloneTree for a mount that the calling thread has just made in a mount
// namespace of its own; name is what messages call it. Attributes are set with
// mount_setattr(2) alone, and its errors are returned as they are.
func TakeOut(path, name string, o CloneOptions) (*os.File, error) {
	m, err := openTree(-1, path, name, false)
	if err != nil {
		return nil, err
	}
	if err := setAttr(m, name, o); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func openTree(dirfd int, path, name string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	fd, err := eintr.Get(func() (int, error) { return unix.OpenTree(atFD(dirfd), path, flags) })
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	return os.NewFile(uintptr(fd), "mount:"+name), nil
}

// setAttr applies the options to a detached tree and tells the one meaning of
// EINVAL that callers act on from the others.
func setAttr(tree *os.File, name string, o CloneOptions) error {
	attr := o.attr()
	if *attr == (unix.MountAttr{}) {
		return nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if o.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	set := func(attr *unix.MountAttr) error {
		return eintr.Do(func() error { return mountSetattr(int(tree.Fd()), "", flags, attr) })
	}
	err := set(attr)
	runtime.KeepAlive(o.Userns)
	switch {
	case err == nil:
		return nil
	case o.Userns != nil && errors.Is(err, unix.EINVAL):
		// The kernel says the same about attributes it does not know: ask again
		// without the mapping.
		plain := o
		plain.Userns = nil
		if err := set(plain.attr()); err != nil {
			return fmt.Errorf("set attributes of mount %q: %w", name, os.NewSyscallError("mount_setattr", err))
		}
		return &NotIDMappableError{Path: name, FSType: fsTypeOf(tree), Kernel: feature.Release()}
	case o.Userns != nil && errors.Is(err, unix.ENOSYS):
		return &NotIDMappableError{Path: name, FSType: fsTypeOf(tree), Kernel: feature.Release()}
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("set attributes of mount %q: mount_setattr %w by kernel %s (needs Linux 5.12)", name, feature.ErrNotSupported, feature.Release())
	case o.Userns != nil && errors.Is(err, unix.EPERM) && userns.Inside():
		return fmt.Errorf("id-map %q: %w: %w", name, err, userns.ErrInside)
	case o.Userns != nil && errors.Is(err, unix.EPERM):
		return fmt.Errorf("id-map %q: it is id-mapped already, or CAP_SYS_ADMIN is missing: %w", name, err)
	}
	return fmt.Errorf("set attributes of mount %q: %w", name, os.NewSyscallError("mount_setattr", err))
}

// Attach attaches a detached mount at path, relative to dirfd (-1 for none;
// with an empty path at dirfd itself), over whatever is mounted there. It must
// be called in the mount namespace of the target. The last component is
// followed if it is a symbolic link.
//
// The caller keeps the file and must close it before the mount can be
// unmounted: an open mount descriptor makes umount(2) fail with EBUSY.
func Attach(m *os.File, dirfd int, path string) error {
	return moveMount(m, dirfd, path, unix.MOVE_MOUNT_T_SYMLINKS)
}

// attachBeneath attaches a detached mount under the topmost mount at path, so
// that unmounting that one reveals it and the path is never without a mount
// (Linux 6.5).
func attachBeneath(m *os.File, dirfd int, path string) error {
	return moveMount(m, dirfd, path, unix.MOVE_MOUNT_T_SYMLINKS|moveMountBeneath)
}

func moveMount(m *os.File, dirfd int, path string, flags int) error {
	flags |= unix.MOVE_MOUNT_F_EMPTY_PATH
	if path == "" {
		flags |= unix.MOVE_MOUNT_T_EMPTY_PATH
	}
	err := eintr.Do(func() error { return unix.MoveMount(int(m.Fd()), "", atFD(dirfd), path, flags) })
	runtime.KeepAlive(m)
	if err != nil {
		return fmt.Errorf("attach %s at %q: %w", m.Name(), describe(dirfd, path), os.NewSyscallError("move_mount", err))
	}
	return nil
}

func atFD(dirfd int) int {
	if dirfd == -1 {
		return unix.AT_FDCWD
	}
	return dirfd
}

// describe names a dirfd and path pair for messages.
func describe(dirfd int, path string) string {
	if dirfd == -1 || filepath.IsAbs(path) {
		return path
	}
	dir, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dirfd))
	if err != nil {
		dir = fmt.Sprintf("fd %d", dirfd)
	}
	return filepath.Join(dir, path)
}
