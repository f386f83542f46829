// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const (
	typeSysfs  = "sysfs"
	typeMqueue = "mqueue"
)

func isSysfs(m specs.Mount) bool { return m.Type == typeSysfs }

// foreign tells whether a mount is of a file system that the kernel mounts only
// for the owner of a namespace that is not the container's own.
func foreign(m specs.Mount, d Decision) bool {
	return isSysfs(m) && d.Network == NetworkForeign || m.Type == typeMqueue && d.ForeignIPC
}

// kernelVolume is the stand-in for a foreign mount. The shim mounts it, in the
// namespace that it shows. A sysfs is read-only for good; that of the host's own
// network namespace is a clone of the host's /sys without its submounts.
func kernelVolume(s *specs.Spec, index int, m specs.Mount) Volume {
	v := Volume{Index: index, Destination: m.Destination, Kernel: m.Type, Flags: []string{"ro", "nosuid", "nodev", "noexec"}}
	kind := specs.NetworkNamespace
	if m.Type == typeMqueue {
		kind = specs.IPCNamespace
		v.Flags = []string{"nosuid", "nodev", "noexec"}
		if slices.Contains(m.Options, "ro") {
			v.Flags = append(v.Flags, "ro")
		}
	}
	if n := Namespace(s, kind); n != nil {
		v.Source = n.Path
	}
	return v
}

// kernelMounts replaces foreign mounts by their staged stand-ins.
func kernelMounts(s *specs.Spec, p *Plan) ([]string, error) {
	for i, staged := range p.Staged {
		if m := &s.Mounts[i]; foreign(*m, p.Decision) {
			options := append([]string{"bind"}, staged.Flags...)
			*m = specs.Mount{Destination: m.Destination, Type: "bind", Source: staged.Source, Options: options}
		}
	}
	return nil, nil
}
