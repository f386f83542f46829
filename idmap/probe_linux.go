// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// probeRange is what probes map to: the start of the default pool of ranges. No
// process ever runs with these ids because of a probe.
var probeRange = Contiguous(0x70000000, 65536)

// UserNamespaces probes whether user namespaces with a mapping can be made:
// kernel configuration, the limit in user.max_user_namespaces and security
// modules.
func UserNamespaces() *Probe {
	return &Probe{Name: "user namespaces", Version: "4.15", Fn: func() error {
		ns, err := NewUserns(probeRange)
		if err == nil {
			return ns.Close()
		}
		for _, errno := range []unix.Errno{unix.ENOSPC, unix.EUSERS, unix.EINVAL, unix.ENOSYS, unix.EPERM} {
			if errors.Is(err, errno) {
				return fmt.Errorf("%w: %w", ErrNotSupported, err)
			}
		}
		return err
	}}
}

// MappableAt probes whether the file system that holds path can be id-mapped. It
// tries with a clone of that very mount, attached nowhere.
func MappableAt(path string) *Probe {
	return &Probe{Name: fmt.Sprintf("id-mapped mounts of %q", path), Version: "5.12", Fn: func() error {
		return withProbeNS(func(ns *os.File) error {
			m, err := CloneTree(-1, path, CloneOptions{Userns: ns})
			if err == nil {
				return m.Close()
			}
			if errors.Is(err, ErrNotIDMappable) || errors.Is(err, unix.ENOSYS) {
				return fmt.Errorf("%w: %w", ErrNotSupported, err)
			}
			return err
		})
	}}
}

// MappableTmpfs probes whether a tmpfs can be id-mapped, which came later than
// for the file systems of disks.
func MappableTmpfs() *Probe {
	return &Probe{Name: "id-mapped tmpfs", Version: "6.3", Fn: func() error {
		return withProbeNS(func(ns *os.File) error {
			c, err := openFSContext("tmpfs")
			if err != nil {
				return err
			}
			defer c.close()
			if err := c.create(); err != nil {
				return err
			}
			m, err := c.mount(0)
			if err != nil {
				return err
			}
			attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
			err = os.NewSyscallError("mount_setattr", unix.MountSetattr(int(m.Fd()), "", unix.AT_EMPTY_PATH, attr))
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
				err = fmt.Errorf("%w: %w", ErrNotSupported, err)
			}
			return errors.Join(err, m.Close())
		})
	}}
}

// OverlayBy probes whether a writable overlay can be built by the given method
// from id-mapped layers on the file system that holds dir, an existing
// directory in which the probe may make a temporary one. Answers for a file
// system that takes no mapping are inconclusive: they say nothing about
// overlays.
func OverlayBy(method Method, dir string) *Probe {
	version := "5.19"
	if method == MethodDetached {
		version = "6.15"
	}
	name := fmt.Sprintf("overlay of id-mapped layers in %q by method %s", dir, method)
	return &Probe{Name: name, Version: version, Fn: func() error {
		return withProbeNS(func(ns *os.File) error { return tryOverlay(ns, method, dir) })
	}}
}

func tryOverlay(ns *os.File, method Method, dir string) (retErr error) {
	tmp, err := os.MkdirTemp(dir, ".isolate-probe-")
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, os.RemoveAll(tmp)) }()
	o := Overlay{
		Lower: []string{filepath.Join(tmp, "lower")},
		Upper: filepath.Join(tmp, "upper"),
		Work:  filepath.Join(tmp, "work"),
	}
	for _, d := range []string{o.Lower[0], o.Upper, o.Work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	root, _ := probeRange.Root()
	m, err := o.Build(ns, root, method)
	if err == nil {
		return m.Close()
	}
	if refused(err) || errors.Is(err, unix.ENODEV) || errors.Is(err, ErrNotIDMappable) && !idMaps() {
		return fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	return err
}

// idMaps tells whether the kernel maps the ids of any file system: whether it has
// mount_setattr(2), which here has no mount to change.
func idMaps() bool { return !errors.Is(mountSetattr(-1, "", 0, &unix.MountAttr{}), unix.ENOSYS) }

// MountBeneath probes move_mount(2) with MOVE_MOUNT_BENEATH, which replaces a
// mount without a moment in which the path shows neither. dir is any existing
// directory.
func MountBeneath(dir string) *Probe {
	return &Probe{Name: "mounting beneath a mount", Version: "6.5", Fn: func() error {
		return inPrivateMounts(func() error {
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
				return os.NewSyscallError("mount", err)
			}
			m, err := CloneTree(-1, dir, CloneOptions{})
			if err != nil {
				return err
			}
			err = AttachBeneath(m, -1, dir)
			if errors.Is(err, unix.EINVAL) {
				err = fmt.Errorf("%w: %w", ErrNotSupported, err)
			}
			return errors.Join(err, m.Close())
		})
	}}
}

func withProbeNS(fn func(ns *os.File) error) error {
	ns, err := NewUserns(probeRange)
	if err != nil {
		return err
	}
	return errors.Join(fn(ns), ns.Close())
}
