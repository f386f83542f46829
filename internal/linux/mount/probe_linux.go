// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/feature"
	"github.com/isolate-shim/isolate/internal/linux/userns"
)

// MappableAt probes whether the file system that holds path can be id-mapped. It
// tries with a clone of that very mount, attached nowhere.
func MappableAt(path string) *feature.Probe {
	return &feature.Probe{Name: fmt.Sprintf("id-mapped mounts of %q", path), Version: "5.12", Fn: func() error {
		return userns.Try(func(ns *os.File) error {
			m, err := CloneTree(-1, path, CloneOptions{Userns: ns})
			if err == nil {
				return m.Close()
			}
			if errors.Is(err, ErrNotIDMappable) || errors.Is(err, unix.ENOSYS) {
				return fmt.Errorf("%w: %w", feature.ErrNotSupported, err)
			}
			return err
		})
	}}
}

// MappableTmpfs probes whether a tmpfs can be id-mapped, which came later than
// for the file systems of disks.
func MappableTmpfs() *feature.Probe {
	return &feature.Probe{Name: "id-mapped tmpfs", Version: "6.3", Fn: func() error {
		return userns.Try(func(ns *os.File) error {
			c, err := OpenFS("tmpfs")
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Create(); err != nil {
				return err
			}
			m, err := c.Mount(0)
			if err != nil {
				return err
			}
			attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
			err = os.NewSyscallError("mount_setattr", unix.MountSetattr(int(m.Fd()), "", unix.AT_EMPTY_PATH, attr))
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
				err = fmt.Errorf("%w: %w", feature.ErrNotSupported, err)
			}
			return errors.Join(err, m.Close())
		})
	}}
}

// MapsIDs tells whether the kernel maps the ids of any file system: whether it has
// mount_setattr(2), which here has no mount to change.
func MapsIDs() bool { return !errors.Is(mountSetattr(-1, "", 0, &unix.MountAttr{}), unix.ENOSYS) }

// AttachableBeneath probes move_mount(2) with MOVE_MOUNT_BENEATH, which replaces a
// mount without a moment in which the path shows neither. dir is any existing
// directory.
func AttachableBeneath(dir string) *feature.Probe {
	return &feature.Probe{Name: "mounting beneath a mount", Version: "6.5", Fn: func() error {
		return InPrivate(func() error {
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
				return os.NewSyscallError("mount", err)
			}
			m, err := CloneTree(-1, dir, CloneOptions{})
			if err != nil {
				return err
			}
			err = attachBeneath(m, -1, dir)
			if errors.Is(err, unix.EINVAL) {
				err = fmt.Errorf("%w: %w", feature.ErrNotSupported, err)
			}
			return errors.Join(err, m.Close())
		})
	}}
}
