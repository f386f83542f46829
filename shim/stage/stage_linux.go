// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
)

// Stage is the staging area of one container.
type Stage struct {
	kernel  Kernel
	dir     string
	label   string // SELinux
	next    int
	mounted bool
	userns  []usernsOf
	sources Sources
	volumes []string // paths, in the order of staging
	moved   bool     // the ids of the rootfs are the container's on disk too
}

type usernsOf struct {
	mapping idmap.Mapping
	file    *os.File
	lent    bool // its owner closes it
}

// New returns a staging area that will be at dir. Nothing is mounted before it
// is needed. What is made there, and not cloned, has the SELinux label of the
// container's own mounts; "" if it has none.
func New(kernel Kernel, dir, mountLabel string) *Stage {
	return &Stage{kernel: kernel, dir: dir, label: mountLabel}
}

// Lend has the stage use a user namespace for its mapping, as long as it is open,
// instead of making another: to make one is to copy the shim's memory for a child.
func (s *Stage) Lend(m idmap.Mapping, userns *os.File) {
	s.userns = append(s.userns, usernsOf{mapping: m, file: userns, lent: true})
}

// Userns returns a user namespace with the mapping, made at the first call.
func (s *Stage) Userns(m idmap.Mapping) (*os.File, error) {
	for _, u := range s.userns {
		if u.mapping.Equal(m) {
			return u.file, nil
		}
	}
	f, err := s.kernel.Userns(m)
	if err != nil {
		return nil, fmt.Errorf("create user namespace: %w", err)
	}
	s.userns = append(s.userns, usernsOf{mapping: m, file: f})
	return f, nil
}

// Close lets go of the user namespaces. The mounts stay; dropping them is the
// record's business.
func (s *Stage) Close() error {
	var errs []error
	for _, u := range s.userns {
		if !u.lent {
			errs = append(errs, u.file.Close())
		}
	}
	s.userns = nil
	return errors.Join(errs...)
}

// mount mounts the staging tmpfs: private, so that nothing on it propagates to
// the peers of /run, and traversable, because the runtime opens what is on it
// as the container's root.
func (s *Stage) mount() error {
	if s.mounted {
		return nil
	}
	if err := os.MkdirAll(s.dir, 0o711); err != nil {
		return fmt.Errorf("create staging directory: %w", err)
	}
	options := "mode=711,size=1m"
	if s.label != "" {
		options += fmt.Sprintf(",context=%q", s.label) // levels have commas
	}
	if err := s.kernel.Mount("isolate", s.dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("mount tmpfs on %q: %w", s.dir, err)
	}
	s.mounted = true
	if err := s.kernel.Mount("", s.dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %q private: %w", s.dir, err)
	}
	return nil
}

// target makes a mount point of the kind that the mount's root is.
func (s *Stage) target(m *os.File) (string, error) {
	path, err := s.entry()
	if err != nil {
		return "", err
	}
	// fstat(2) would ask the server of a network or FUSE file system.
	var st unix.Statx_t
	if err := unix.Statx(int(m.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return "", fmt.Errorf("stat staged mount: %w", err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := os.Mkdir(path, 0o711); err != nil {
			return "", fmt.Errorf("create mount point: %w", err)
		}
		return path, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if err != nil {
		return "", fmt.Errorf("create mount point: %w", err)
	}
	return path, f.Close()
}
