// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// SystemdCgroup tells whether the caller has named the container's cgroup in the
// form that is systemd's alone, "slice:prefix:name". containerd does so for a
// kubelet with that cgroup driver, and Docker with its own, also where neither
// tells the shim which driver it is.
func SystemdCgroup(s *specs.Spec) bool {
	p := s.Linux.CgroupsPath
	return !path.IsAbs(p) && strings.Count(p, ":") == 2
}

// CheckCgroupPath refuses a cgroup path that can lead to groups of others: runtimes
// move processes into the group, and remove all groups below it that are empty.
func CheckCgroupPath(s *specs.Spec) error {
	p := s.Linux.CgroupsPath
	parts := strings.Split(p, "/")
	wrong := p != "" && path.Join("/", p) == "/" || slices.Contains(parts, "..") || SystemdCgroup(s) && len(parts) > 1
	if !wrong {
		return nil
	}
	return fmt.Errorf("cgroup path %q of the spec leads to groups of others; name a group for this container alone, such as \"/isolate/ID\" or \"system.slice:isolate:ID\": %w", p, ErrRefused)
}

// ExistingCgroup is what is in a container's group before the container is made.
type ExistingCgroup struct {
	Dir string
	// Populated is set if processes are in it or below it.
	Populated bool
	// Owners are the users to whom the groups in it belong.
	Owners []uint32
}

// CheckCgroups refuses a group that is used by others, as runc does where processes
// are in it (since 1.2): crun kills those with the container, and both remove groups of
// others. Groups of users above 65535 are what a container with this name left.
func CheckCgroups(existing []ExistingCgroup) error {
	for _, g := range existing {
		what := ""
		if slices.ContainsFunc(g.Owners, func(uid uint32) bool { return uid < hostIDs }) {
			what = "has groups of others below it"
		}
		if g.Populated {
			what = "has processes"
		}
		if what != "" {
			return fmt.Errorf("cgroup %q, which the spec names, exists and %s; name a group for this container alone: %w", g.Dir, what, ErrRefused)
		}
	}
	return nil
}

// hostIDs are the ids of the host's own users; containers get later ones.
const hostIDs = 65536

// CgroupPath returns the container's cgroup below the cgroup mount, as runc and
// crun derive it from linux.cgroupsPath: an absolute path as it is, or with the
// systemd driver "slice:prefix:name". It returns "" if the path cannot be known
// before the runtime ran.
func CgroupPath(s *specs.Spec, systemd bool) string {
	p := s.Linux.CgroupsPath
	if !systemd {
		if !path.IsAbs(p) {
			return ""
		}
		return path.Clean(p)
	}
	parts := strings.Split(p, ":")
	if len(parts) != 3 || parts[2] == "" {
		return ""
	}
	unit := parts[1] + "-" + parts[2] + ".scope"
	if strings.HasSuffix(parts[2], ".slice") {
		unit = parts[2]
	} else if parts[1] == "" {
		unit = parts[2] + ".scope"
	}
	slice := parts[0]
	if slice == "" {
		slice = "system.slice"
	}
	return path.Join(expandSlice(slice), unit)
}

// expandSlice turns "a-b.slice" into "/a.slice/a-b.slice" (systemd.slice(5)).
func expandSlice(slice string) string {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "-" {
		return "/"
	}
	out, prefix := "/", ""
	for part := range strings.SplitSeq(name, "-") {
		prefix += part
		out = path.Join(out, prefix+".slice")
		prefix += "-"
	}
	return out
}
