// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const cgroupDir = "/sys/fs/cgroup"

// cgroupMount gives the container a writable view of its own cgroup. What is
// delegated in it is decided by ownership (package cgroup), not here.
func cgroupMount(s *specs.Spec, p *Plan) {
	sys := mountAt(s, "/sys")
	if sys < 0 {
		return // nothing to mount it on
	}
	if mountAt(s, cgroupDir) < 0 && onVolume(s, cgroupDir) && p.Staged[sys].Kernel == "" {
		return
	}
	if i := mountAt(s, cgroupDir); i >= 0 && isBind(s.Mounts[i]) {
		return // the caller's own choice
	}
	setMount(s, specs.Mount{
		Destination: cgroupDir, Type: "cgroup", Source: "cgroup",
		Options: []string{"nosuid", "noexec", "nodev", "relatime", "rw"},
	})
}

// writableSysfs mounts sysfs writable and makes that mount read-only
// afterwards. The option "ro" would make the superblock read-only, which all
// sysfs mounts of a network and user namespace share: inner containers could
// then mount none ("VFS: Mount too revealing").
//
// Read-only paths below /proc/sys go: the kernel lets the container's root
// write only what its namespaces own, and dockerd must enable ip_forward.
func writableSysfs(s *specs.Spec, _ *Plan) {
	s.Linux.ReadonlyPaths = slices.DeleteFunc(slices.Clone(s.Linux.ReadonlyPaths), func(p string) bool {
		return p == "/proc/sys" || strings.HasPrefix(p, "/proc/sys/")
	})
	i := mountAt(s, "/sys")
	if i < 0 || !isSysfs(s.Mounts[i]) {
		return
	}
	m := &s.Mounts[i]
	m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "ro" })
	if !slices.Contains(s.Linux.ReadonlyPaths, "/sys") {
		s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, "/sys")
	}
}

// hidden is where the spare file systems are, in the container.
const hidden = "/dev/.lxc"

// spare mounts a second proc and sysfs that nothing covers, behind a directory
// that only the container's root may enter.
//
// The kernel lets a nested user namespace mount proc or sysfs only if one of
// the same kind is fully visible in its mount namespace (mount_too_revealing,
// fs/namespace.c); masked paths and lxcfs files cover the first one. It does
// not ask whether the visible one can be reached. The directory is a bind of a
// host directory that already holds the two mount points, because crun makes
// mount points of proc and sysfs only at the root.
func spare(s *specs.Spec, p *Plan) {
	if p.Nesting.Hidden == "" || mountAt(s, "/dev") < 0 || onVolume(s, hidden) {
		return
	}
	flags := []string{"nosuid", "noexec", "nodev"}
	setMount(s, specs.Mount{Destination: hidden, Type: "bind", Source: p.Nesting.Hidden, Options: append([]string{"bind", "rw"}, flags...)})
	setMount(s, specs.Mount{Destination: hidden + "/proc", Type: "proc", Source: "proc", Options: flags})
	if p.Network == NetworkOwned {
		setMount(s, specs.Mount{Destination: hidden + "/sys", Type: "sysfs", Source: "sysfs", Options: flags})
	}
}
