// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Nesting is how a container is fitted out so that system software (systemd,
// dockerd, podman, kubelet) works inside it without privileges. A nil Nesting
// leaves the caller's spec as it is, apart from the user namespace.
//
// Callers differ: ctr's default spec has no cgroup mount and no cgroup
// namespace, CRI's mounts the cgroup read-only, Docker's depends on its flags.
// Each is brought to the same result. Nothing here weakens what separates the
// container from the host: that is its user namespace, its seccomp profile, and
// mounts that the kernel locks.
type Nesting struct {
	// KeepCaps leaves the caller's capabilities (caps = "honor").
	KeepCaps bool
	// KeepSeccomp leaves the caller's seccomp profile (seccomp = "keep").
	KeepSeccomp bool
	// AppArmor is what the host has of it; the zero value for apparmor = "keep".
	AppArmor AppArmor
	// SELinux lists the NestingTypes that the host's policy has. It matters
	// only for labels, which callers send where SELinux is on.
	SELinux []string
	// Hidden is the host directory of the spare proc and sysfs; see spare.
	Hidden string
	// Devices maps device nodes of the container to their staged nodes.
	Devices map[string]string
	// Stores are directories of the container's upper layer that inner image
	// stores use; destination to host path.
	Stores map[string]string
	// Systemd is set if the init process is, or becomes, systemd.
	Systemd bool
	// Units is the host directory with MaskedUnits, if Systemd is set.
	Units string
	// Limits are the hard resource limits that the host can grant; a limit
	// that is missing is not bounded.
	Limits map[string]uint64
}

// nest is the part of the pipeline that Nesting switches on, in order.
func nest(s *specs.Spec, p *Plan) ([]string, error) {
	n := p.Nesting
	if n == nil {
		return nil, nil
	}
	for _, step := range []func(*specs.Spec, *Plan){devices, cgroupMount, writableSysfs, spare, stores, systemd, seccompProfile} {
		step(s, p)
	}
	var warnings []string
	if onVolume(s, hidden) {
		warnings = append(warnings, "a volume of the caller is mounted on /dev, where isolate makes nothing: programs inside have the nodes of that volume alone, and containers inside cannot mount proc; mount single files or directories below /dev instead")
	}
	// Inner runtimes mount with shared propagation ("/" is not a shared mount:
	// podman, kubelet's mountPropagation). The host does not see them: a mount
	// namespace of a less privileged user namespace is a slave.
	s.Linux.RootfsPropagation = "rshared"
	return warnings, nil
}

// setMount replaces the mount at m.Destination, or adds it.
func setMount(s *specs.Spec, m specs.Mount) {
	if i := mountAt(s, m.Destination); i >= 0 {
		s.Mounts[i] = m
		return
	}
	s.Mounts = append(s.Mounts, m)
}

// mountAt returns the index of the last mount at a destination, or -1.
func mountAt(s *specs.Spec, destination string) int {
	for i, m := range slices.Backward(s.Mounts) {
		if m.Destination == destination {
			return i
		}
	}
	return -1
}

// onVolume tells whether a mount point would be made in a volume: the runtime
// creates what is missing, and nothing of ours may be left in a caller's directory.
func onVolume(s *specs.Spec, p string) bool {
	for _, m := range slices.Backward(s.Mounts) {
		if below(p, path.Clean(m.Destination)) {
			return isBind(m)
		}
	}
	return false
}

// Covered tells whether the caller mounts something at a path, or above it.
func Covered(s *specs.Spec, p string) bool {
	return slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool {
		d := path.Clean(m.Destination)
		return p == d || d != "/" && below(p, d)
	})
}

// below tells whether a path is below a directory that is not the root.
func below(p, dir string) bool { return strings.HasPrefix(path.Clean(p), dir+"/") }
