// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
// it maps what can be mapped and reports the rest, in mount order. Propagation 0
// stands for MS_PRIVATE.
//
// The kernel maps a tree as a whole, or the topmost mount of a detached one alone.
// So the tree is taken apart in a mount namespace that nobody else sees, and every
// mount, with those below it in place, is mapped as the top of a tree of its own.
// Mount points are looked up before that: through a mapping the host's root has no
// rights in directories whose owners it does not contain.
//
// The usual case, everything can be mapped, costs no more than CloneTree.
func ClonePartial(dirfd int, path string, o CloneOptions) (*os.File, []Unmapped, error) {
	tree, err := CloneTree(dirfd, path, o)
	if err == nil || o.Userns == nil || !mapRefused(err) {
		return tree, nil, err
	}
	name := describe(dirfd, path)
	plain := o
	plain.Userns = nil
	if plain.Propagation == 0 {
		plain.Propagation = unix.MS_PRIVATE // nothing of this is to reach the source
	}
	if tree, err = CloneTree(dirfd, path, plain); err != nil {
		return nil, nil, err
	}
	defer func() { tree.Close() }()
	p := partial{name: name, userns: o.Userns}
	var out *os.File
	err = InPrivate(func() error {
		if err := attachAt(tree, "/", "/proc/filesystems"); err != nil {
			return err
		}
		out, err = p.mapEach(tree)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("id-map the mounts of %q one by one: %w", name, err)
	}
	slices.Reverse(p.unmapped)
	return out, p.unmapped, nil
}

// mapRefused tells that one mount does not take the mapping, so that it can be
// left without.
func mapRefused(err error) bool {
	return errors.Is(err, ErrNotIDMappable) || errors.Is(err, unix.EPERM)
}

// partial maps the mounts of a tree that is attached at "/".
type partial struct {
	name     string // of the tree, for messages
	userns   *os.File
	unmapped []Unmapped // the last one first
}

func (p *partial) mapEach(tree *os.File) (_ *os.File, retErr error) {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, err
	}
	topID, err := ID(tree)
	if err != nil {
		return nil, err
	}
	done := map[int]*os.File{} // detached, by the id that it had
	defer func() {
		for _, f := range done {
			f.Close()
		}
	}()
	below := mountsBelow(mounts, topID, "/")
	// The last one first: it hides others, and none hides it.
	for _, m := range slices.Backward(below) {
		rel := relative("/", m.Mountpoint)
		at, err := openat.Open(tree, rel, unix.O_PATH|unix.O_NOFOLLOW, openat.Beneath|openat.NoLinks)
		if err != nil {
			return nil, err
		}
		done[m.ID], err = p.take(at, m, below, done)
		if err := errors.Join(err, at.Close()); err != nil {
			return nil, err
		}
	}
	return p.mapped(tree, &mountinfo.Info{ID: topID, Mountpoint: "/", FSType: fsTypeByID(mounts, topID)}, below, done)
}

// take maps a mount and removes it from the tree.
func (p *partial) take(at *os.File, m *mountinfo.Info, below []*mountinfo.Info, done map[int]*os.File) (*os.File, error) {
	if id, err := ID(at); err != nil || id != m.ID {
		return nil, errors.Join(fmt.Errorf("another mount is at %q", m.Mountpoint), err)
	}
	f, err := p.mapped(at, m, below, done)
	if err != nil {
		return nil, err
	}
	// Out of the way. umount(2) would take what is mounted on its root instead.
	if err := attachAt(at, "/proc/fs", "/proc/filesystems"); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// mapped attaches to a mount what is mounted on it and returns a detached copy of
// the whole, with the mapping if the mount takes it.
func (p *partial) mapped(at *os.File, m *mountinfo.Info, below []*mountinfo.Info, done map[int]*os.File) (*os.File, error) {
	for _, sub := range below {
		if sub.Parent != m.ID {
			continue
		}
		// Not onto another mount: in the order of mounting it cannot be hidden yet.
		place, err := openat.Open(at, relative(m.Mountpoint, sub.Mountpoint), unix.O_PATH|unix.O_NOFOLLOW, openat.Beneath|openat.NoLinks|openat.SameMount)
		if err != nil {
			return nil, err
		}
		err = moveMount(done[sub.ID], int(place.Fd()), "", 0)
		if err := errors.Join(err, place.Close(), done[sub.ID].Close()); err != nil {
			return nil, err
		}
		delete(done, sub.ID)
	}
	name := filepath.Join(p.name, relative("/", m.Mountpoint))
	f, err := openTree(int(at.Fd()), "", name, true)
	if err != nil {
		return nil, err
	}
	err = setAttr(f, name, CloneOptions{Userns: p.userns})
	if err != nil && mapRefused(err) {
		p.unmapped = append(p.unmapped, Unmapped{Mountpoint: name, FSType: m.FSType, Err: err})
		err = nil
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// relative returns the path of a mount point from one above it.
func relative(from, to string) string {
	return cmp.Or(strings.TrimPrefix(strings.TrimPrefix(to, strings.TrimSuffix(from, "/")), "/"), ".")
}

// mountsBelow returns the mounts on the mount id whose mountpoint starts with
// prefix, and all on those, in the order of mounts: each after the one it is
// mounted on, and after those that it may hide.
func mountsBelow(mounts []*mountinfo.Info, id int, prefix string) []*mountinfo.Info {
	in := map[int]bool{}
	var below []*mountinfo.Info
	for _, m := range mounts {
		if m.ID != id && (in[m.Parent] || m.Parent == id && strings.HasPrefix(m.Mountpoint, prefix)) {
			in[m.ID] = true
			below = append(below, m)
		}
	}
	return below
}

// ID returns the id of the mount that a file is on, as in mountinfo. It asks without
// syncing, so that a dead network or FUSE server cannot hold it up.
func ID(f *os.File) (int, error) {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st)
	if err != nil {
		return 0, &os.PathError{Op: "statx", Path: f.Name(), Err: err}
	}
	return int(st.Mnt_id), nil //nolint:gosec // the kernel's is an int
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

// TypeAt names the file system of a host path for a message.
func TypeAt(path string) string {
	f, err := os.OpenFile(filepath.Clean(path), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	if t := fsTypeOf(f); t != "" {
		return t
	}
	return "unknown"
}
