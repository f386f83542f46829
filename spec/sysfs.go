// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"github.com/opencontainers/runtime-spec/specs-go"
)

func isSysfs(m specs.Mount) bool { return m.Type == "sysfs" }

// sysfsVolume is the stand-in for a sysfs that the kernel will not mount: a
// clone of the host's /sys without its submounts, read-only for good.
func sysfsVolume(index int, m specs.Mount) Volume {
	return Volume{
		Index:       index,
		Destination: m.Destination,
		Source:      "/sys",
		Flags:       []string{"ro", "nosuid", "nodev", "noexec"},
	}
}

// sysfs replaces the sysfs mount of a container with a foreign network
// namespace by the staged read-only clone of the host's.
func sysfs(s *specs.Spec, p *Plan) ([]string, error) {
	if p.Network != NetworkForeign {
		return nil, nil
	}
	for i, staged := range p.Staged {
		if m := &s.Mounts[i]; isSysfs(*m) {
			options := append([]string{"bind"}, staged.Flags...)
			*m = specs.Mount{Destination: m.Destination, Type: "bind", Source: staged.Source, Options: options}
		}
	}
	return nil, nil
}
