// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/eintr"
)

// Mount is a mount that is attached somewhere, held by its root, so that nothing
// that happens at its path meanwhile makes it another one.
type Mount struct {
	*mountinfo.Info
	root *os.File // O_PATH
	// Below is set if something is mounted below it.
	Below string
}

// At returns the topmost mount at a path, or an error that matches
// fs.ErrNotExist if there is no such path. It asks no server of a network or
// FUSE file system. path must not be a symbolic link.
func At(path string) (_ *Mount, retErr error) {
	fd, err := eintr.Get(func() (int, error) {
		return unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	m := &Mount{root: os.NewFile(uintptr(fd), path)}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, m.Close())
		}
	}()
	id, err := ID(m.root)
	if err != nil {
		return nil, fmt.Errorf("mount at %q: %w", path, err)
	}
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("mount at %q: %w", path, err)
	}
	for _, info := range mounts {
		switch id {
		case info.ID:
			m.Info = info
		case info.Parent:
			m.Below = info.Mountpoint
		}
	}
	if m.Info == nil {
		return nil, fmt.Errorf("mount at %q: it is in no list of mounts", path)
	}
	return m, nil
}

// Path is what At was given.
func (m *Mount) Path() string { return m.root.Name() }

// IsRoot tells that the path is where the mount is attached, and not a directory
// below.
func (m *Mount) IsRoot() bool {
	at, err := filepath.EvalSymlinks(m.Path())
	return err == nil && m.Mountpoint == at
}

// Close lets go of the mount, which stays.
func (m *Mount) Close() error { return m.root.Close() }

// Unmount detaches the mount, this one and no other, or answers [ErrDetached].
func (m *Mount) Unmount() error {
	// Of a path through /proc, umount(2) takes the very mount behind it.
	path := "/proc/self/fd/" + strconv.Itoa(int(m.root.Fd()))
	err := eintr.Do(func() error { return unix.Unmount(path, unix.MNT_DETACH) })
	if errors.Is(err, unix.EINVAL) {
		err = ErrDetached
	}
	if err != nil {
		return fmt.Errorf("unmount %q: %w", m.Path(), err)
	}
	return nil
}

// Replace puts a detached mount in the place of this one, which it detaches. The
// path is never without a mount where the kernel has MOVE_MOUNT_BENEATH (6.5). If
// somebody else has detached this mount, the answer is [ErrDetached], and nothing
// takes its place.
func (m *Mount) Replace(by *os.File) error {
	err := moveMount(by, int(m.root.Fd()), "", moveMountBeneath)
	if err == nil {
		return m.Unmount()
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("replace mount at %q: %w", m.Path(), ErrDetached)
	case errors.Is(err, unix.EINVAL): // it has been detached, or is an older kernel's
		return m.replaceStepwise(by)
	}
	return err
}

// replaceStepwise does it in two steps, and puts the mount back if the second fails.
func (m *Mount) replaceStepwise(by *os.File) error {
	spare, err := openTree(int(m.root.Fd()), "", m.Path(), false)
	if errors.Is(err, unix.EINVAL) {
		err = ErrDetached
	}
	if err != nil {
		return fmt.Errorf("replace mount at %q: %w", m.Path(), err)
	}
	defer spare.Close()
	if err := m.Unmount(); err != nil {
		return err
	}
	if err := moveMount(by, -1, m.Path(), 0); err != nil {
		return errors.Join(err, moveMount(spare, -1, m.Path(), 0))
	}
	return nil
}

// newPlaceholder returns an empty detached tmpfs, which mountinfo calls source. In
// the place of an overlay it makes room for another one on the same upper layer:
// there is nothing on it, but the path stays a mount point, so that nobody else
// takes it for unmounted, or can unmount it unnoticed.
func newPlaceholder(source string) (*os.File, error) {
	c, err := OpenFS("tmpfs")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for _, option := range []Option{
		{Key: "source", Value: source, HasValue: true},
		{Key: "mode", Value: "0700", HasValue: true},
		{Key: "size", Value: "4k", HasValue: true},
	} {
		if err := c.Set(option); err != nil {
			return nil, err
		}
	}
	if err := c.Create(); err != nil {
		return nil, err
	}
	return c.Mount(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC)
}

// Clear replaces the mount by a placeholder called source, and lets go of it, so
// that its file system is gone unless somebody else uses it.
func (m *Mount) Clear(source string) error {
	placeholder, err := newPlaceholder(source)
	if err != nil {
		return errors.Join(err, m.Close())
	}
	return errors.Join(m.Replace(placeholder), m.Close(), placeholder.Close())
}
