// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"path"
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
