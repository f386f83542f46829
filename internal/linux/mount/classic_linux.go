// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/feature"
	"github.com/isolate-shim/isolate/internal/linux/openat"
)

// mountSetattr is mount_setattr(2). Tests replace it by what an older kernel
// answers.
var mountSetattr = unix.MountSetattr

// classicFlags are the flags of mount(2) for attributes of mount_setattr(2), by
// their names in mountinfo.
var classicFlags = map[string]struct {
	attr uint64
	flag uintptr
}{
	"ro":          {unix.MOUNT_ATTR_RDONLY, unix.MS_RDONLY},
	"nosuid":      {unix.MOUNT_ATTR_NOSUID, unix.MS_NOSUID},
	"nodev":       {unix.MOUNT_ATTR_NODEV, unix.MS_NODEV},
	"noexec":      {unix.MOUNT_ATTR_NOEXEC, unix.MS_NOEXEC},
	"nodiratime":  {unix.MOUNT_ATTR_NODIRATIME, unix.MS_NODIRATIME},
	"noatime":     {unix.MOUNT_ATTR_NOATIME, unix.MS_NOATIME},
	"nosymfollow": {unix.MOUNT_ATTR_NOSYMFOLLOW, unix.MS_NOSYMFOLLOW},
}

// setClassic is setAttr for kernels before 5.12, which have no mount_setattr(2):
// it changes the mounts of a detached tree by mount(2). That takes attached mounts
// only, so the tree is attached where nobody sees it, and a new clone of it is
// returned; the old one is closed. There is no mapping.
func setClassic(tree *os.File, name string, o CloneOptions) (out *os.File, err error) {
	err = InPrivate(func() error {
		if err := attachAt(tree, "/", "/proc/filesystems"); err != nil {
			return err
		}
		if err := reflag(tree, o); err != nil {
			return err
		}
		if o.Recursive {
			if err := reflagBelow(tree, o); err != nil {
				return err
			}
		}
		if o.Propagation != 0 {
			flags := uintptr(o.Propagation)
			if o.Recursive {
				flags |= unix.MS_REC
			}
			if err := unix.Mount("", procPath(tree), "", flags, ""); err != nil {
				return fmt.Errorf("set propagation: %w", os.NewSyscallError("mount", err))
			}
		}
		out, err = openTree(int(tree.Fd()), "", name, true)
		return err
	})
	if err := errors.Join(err, tree.Close()); err != nil {
		return nil, fmt.Errorf("set attributes of mount %q without mount_setattr: %w", name, err)
	}
	return out, nil
}

// attachAt attaches a mount at one of two places that are there on every machine,
// whichever is of the kind that its root is.
func attachAt(tree *os.File, dir, file string) error {
	var st unix.Statx_t
	if err := unix.Statx(int(tree.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return os.NewSyscallError("statx", err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return Attach(tree, -1, dir)
	}
	return Attach(tree, -1, file)
}

// procPath leads to the very mount and directory of a descriptor.
func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// reflagBelow changes all mounts below a tree that is attached at "/".
func reflagBelow(tree *os.File, o CloneOptions) error {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return err
	}
	id, err := ID(tree)
	if err != nil {
		return err
	}
	for _, m := range mountsBelow(mounts, id, "/") {
		sub, err := openat.Open(tree, strings.TrimPrefix(m.Mountpoint, "/"), unix.O_PATH|unix.O_NOFOLLOW, openat.Beneath)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue // hidden by a later mount
		}
		if err != nil {
			return err
		}
		there, err := ID(sub)
		if err == nil && there == m.ID {
			err = reflag(sub, o)
		}
		if err := errors.Join(err, sub.Close()); err != nil {
			return err
		}
	}
	return nil
}

// reflag changes the flags of one mount, given by its root. mount(2) sets all of
// them at once, so those that it has are read first.
func reflag(root *os.File, o CloneOptions) error {
	if o.SetAttrs == 0 && o.ClearAttrs == 0 {
		return nil
	}
	id, err := ID(root)
	if err != nil {
		return err
	}
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.ID != id, m.ID == id })
	if err != nil {
		return err
	}
	if len(mounts) != 1 {
		return fmt.Errorf("mount %d is not in mountinfo", id)
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND)
	// The mode of access times is always named: with nodiratime alone the kernel
	// would take relatime. strictatime is what mountinfo says nothing about.
	relatime := false
	for option := range strings.SplitSeq(mounts[0].Options, ",") {
		if f, ok := classicFlags[option]; ok && o.ClearAttrs&f.attr == 0 {
			flags |= f.flag
		}
		relatime = relatime || option == "relatime"
	}
	for _, f := range classicFlags {
		if o.SetAttrs&f.attr != 0 {
			flags |= f.flag
		}
	}
	switch {
	case o.SetAttrs&unix.MOUNT_ATTR__ATIME == unix.MOUNT_ATTR_STRICTATIME:
		flags = flags&^unix.MS_NOATIME | unix.MS_STRICTATIME
	case flags&unix.MS_NOATIME == 0 && !relatime && o.ClearAttrs&unix.MOUNT_ATTR__ATIME == 0:
		flags |= unix.MS_STRICTATIME
	}
	if err := unix.Mount("", procPath(root), "", flags, ""); err != nil {
		return fmt.Errorf("change flags to %#x: %w", flags, os.NewSyscallError("mount", err))
	}
	return nil
}

// Restrict changes attributes of the topmost mount of a detached tree alone, and
// returns the tree, which may be another file: then the old one is closed, as it
// is after an error.
func Restrict(tree *os.File, set, clear uint64) (*os.File, error) {
	o := CloneOptions{SetAttrs: set, ClearAttrs: clear}
	err := setAttr(tree, tree.Name(), o)
	if errors.Is(err, feature.ErrNotSupported) {
		return setClassic(tree, tree.Name(), o)
	}
	if err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	return tree, nil
}
