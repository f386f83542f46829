// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/openat"
)

// Unmapped is a mount that a partial clone holds without id mapping.
type Unmapped struct {
	Mountpoint string // in the caller's mount namespace
	FSType     string
	Err        error // matches ErrNotIDMappable, or says it was mapped already
}

// ClonePartial is [CloneTree] for sources in which some mounts take no mapping:
// it maps what can be mapped and reports the rest, in mount order. The kernel
// maps a tree as a whole or not at all, and no single mount of an assembled
// detached tree, so here every mount is cloned alone and the tree is put
// together in a mount namespace that nobody else sees.
//
// The usual case, everything can be mapped, costs no more than CloneTree.
func ClonePartial(dirfd int, path string, o CloneOptions) (*os.File, []Unmapped, error) {
	tree, err := CloneTree(dirfd, path, o)
	if err == nil || o.Userns == nil || !mapRefused(err) {
		return tree, nil, err
	}
	name := describe(dirfd, path)
	parts, err := cloneParts(dirfd, path, o)
	defer func() {
		for _, p := range parts {
			p.tree.Close() //nolint:errcheck // nothing is written to a mount descriptor
		}
	}()
	if err != nil {
		return nil, nil, fmt.Errorf("clone mounts of %q one by one: %w", name, err)
	}
	var unmapped []Unmapped
	for _, p := range parts {
		if p.refused != nil {
			unmapped = append(unmapped, Unmapped{Mountpoint: p.mountpoint, FSType: p.fsType, Err: p.refused})
		}
	}
	tree, err = assemble(name, parts)
	if err != nil {
		return nil, nil, fmt.Errorf("clone mounts of %q one by one: %w", name, err)
	}
	return tree, unmapped, nil
}

// mapRefused tells that one mount does not take the mapping, so that it can be
// left without.
func mapRefused(err error) bool {
	return errors.Is(err, ErrNotIDMappable) || errors.Is(err, unix.EPERM)
}

// part is the clone of one mount of a tree; the first one is the top.
type part struct {
	tree       *os.File
	rel        string // where it goes below the top
	mountpoint string
	fsType     string
	refused    error // why it has no mapping
}

func cloneParts(dirfd int, path string, o CloneOptions) (parts []part, err error) {
	recursive := o.Recursive
	o.Recursive = false
	flags := unix.O_PATH | unix.O_CLOEXEC
	var fd int
	if path == "" {
		fd, err = unix.FcntlInt(uintptr(dirfd), unix.F_DUPFD_CLOEXEC, 0)
	} else {
		fd, err = retryOnEINTR(func() (int, error) { return unix.Openat(atFD(dirfd), path, flags, 0) })
	}
	if err != nil {
		return nil, os.NewSyscallError("openat", err)
	}
	top := os.NewFile(uintptr(fd), describe(dirfd, path))
	defer top.Close() //nolint:errcheck // O_PATH
	root, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, err
	}
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, err
	}
	topID, err := mountID(fd)
	if err != nil {
		return nil, err
	}
	p, err := clonePart(fd, ".", root, o)
	if err != nil {
		return nil, err
	}
	p.fsType = fsTypeByID(mounts, topID)
	parts = append(parts, p)
	if !recursive {
		return parts, nil
	}
	for _, m := range mountsBelow(mounts, topID, strings.TrimSuffix(root, "/")+"/") {
		sub, err := openMountpoint(m)
		if err != nil {
			return parts, err
		}
		if sub == nil { // hidden by a later mount
			continue
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(m.Mountpoint, root), "/")
		p, err := clonePart(int(sub.Fd()), rel, m.Mountpoint, o)
		sub.Close() //nolint:errcheck // O_PATH
		if errors.Is(err, unix.EINVAL) {
			// Unbindable: a recursive bind leaves it out as well.
			continue
		}
		if err != nil {
			return parts, err
		}
		p.fsType = m.FSType
		parts = append(parts, p)
	}
	return parts, nil
}

// clonePart clones one mount, without mapping if it takes none.
func clonePart(fd int, rel, mountpoint string, o CloneOptions) (part, error) {
	tree, err := CloneTree(fd, "", o)
	p := part{tree: tree, rel: rel, mountpoint: mountpoint}
	if err != nil && mapRefused(err) {
		plain := o
		plain.Userns = nil
		p.refused = err
		p.tree, err = CloneTree(fd, "", plain)
	}
	return p, err
}

// mountsBelow returns the mounts on the mount id whose mountpoint starts with
// prefix, and all on those, each after the one it is mounted on.
func mountsBelow(mounts []*mountinfo.Info, id int, prefix string) []*mountinfo.Info {
	var below []*mountinfo.Info
	for _, m := range mounts {
		if m.Parent == id && m.ID != id && strings.HasPrefix(m.Mountpoint, prefix) {
			below = append(below, m)
			below = append(below, mountsBelow(mounts, m.ID, "")...)
		}
	}
	return below
}

// openMountpoint opens the root of a mount, or returns nil if another mount
// covers it, in which case a path cannot lead there.
func openMountpoint(m *mountinfo.Info) (*os.File, error) {
	fd, err := retryOnEINTR(func() (int, error) {
		return unix.Open(m.Mountpoint, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	})
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil, nil //nolint:nilnil // documented
		}
		return nil, &os.PathError{Op: "open", Path: m.Mountpoint, Err: err}
	}
	f := os.NewFile(uintptr(fd), m.Mountpoint)
	id, err := mountID(fd)
	if err != nil || id != m.ID {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// assemble puts the clones together below the first one and returns the whole
// as one detached tree. The clones keep their mappings: only the first time a
// mount gets one is bound to its being detached.
func assemble(name string, parts []part) (tree *os.File, err error) {
	if len(parts) == 1 {
		top := parts[0].tree
		fd, err := unix.FcntlInt(top.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		return os.NewFile(uintptr(fd), top.Name()), nil
	}
	err = inPrivateMounts(func() error {
		// Any place will do, nobody else ever looks at it.
		if err := Attach(parts[0].tree, -1, "/"); err != nil {
			return err
		}
		top := int(parts[0].tree.Fd())
		for _, p := range parts[1:] {
			target, err := openat.Open(parts[0].tree, p.rel, unix.O_PATH, openat.Beneath)
			if err != nil {
				return err
			}
			err = moveMount(p.tree, int(target.Fd()), "", 0)
			if err := errors.Join(err, target.Close()); err != nil {
				return err
			}
		}
		tree, err = openTree(top, "", name, true)
		return err
	})
	return tree, err
}

// mountID returns the id of the mount a descriptor is on, as in mountinfo. It
// asks without syncing, so that a dead network or FUSE server cannot hold it up.
func mountID(fd int) (int, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st)
	if err != nil {
		return 0, os.NewSyscallError("statx", err)
	}
	return int(st.Mnt_id), nil
}

func fsTypeByID(mounts []*mountinfo.Info, id int) string {
	for _, m := range mounts {
		if m.ID == id {
			return m.FSType
		}
	}
	return ""
}

// fsTypeOf names the file system behind a descriptor, "" if that cannot be
// told. It goes by device number, since a detached mount is in no mountinfo.
func fsTypeOf(f *os.File) string {
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &st); err != nil {
		return ""
	}
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		same := m.Major == int(st.Dev_major) && m.Minor == int(st.Dev_minor)
		return !same, same
	})
	if err != nil || len(mounts) == 0 {
		return ""
	}
	return mounts[0].FSType
}

// kernelRelease is uname -r, for messages.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// fsTypeAt names the file system of a host path for a message.
func fsTypeAt(path string) string {
	f, err := os.OpenFile(filepath.Clean(path), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "unknown"
	}
	defer f.Close() //nolint:errcheck // O_PATH
	if t := fsTypeOf(f); t != "" {
		return t
	}
	return "unknown"
}
