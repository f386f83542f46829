// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// mountPoint is one call of mount(2), whose target is made if need be.
type mountPoint struct {
	source, target, kind string
	flags                uintptr
	data                 string
	// optional mounts are those of file systems that not every kernel has.
	optional bool
}

const secure = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC

func (m mountPoint) mount() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		if m.optional {
			return nil
		}
		return fmt.Errorf("make mount point: %w", err)
	}
	err := syscall.Mount(m.source, m.target, m.kind, m.flags, m.data)
	if err == nil || m.optional && (errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EINVAL)) {
		return nil
	}
	return fmt.Errorf("mount %s %q at %q with %q: %w", m.kind, m.source, m.target, m.data, err)
}

func mountAll(list []mountPoint) error {
	for _, m := range list {
		if err := m.mount(); err != nil {
			return err
		}
	}
	return nil
}

// mountKernelFilesystems mounts what init itself needs. All of it moves to the
// guest's root later.
func mountKernelFilesystems() error {
	return mountAll([]mountPoint{
		{source: "devtmpfs", target: "/dev", kind: "devtmpfs", flags: syscall.MS_NOSUID, data: "mode=755"},
		{source: "proc", target: "/proc", kind: "proc", flags: secure},
		{source: "sysfs", target: "/sys", kind: "sysfs", flags: secure},
	})
}
