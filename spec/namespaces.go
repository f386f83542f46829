// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"github.com/opencontainers/runtime-spec/specs-go"
)

// namespaces gives the container its user namespace, and the mount and cgroup
// namespaces that callers may leave out (ctr's default spec has no cgroup
// namespace). The others are left as the caller set them: Decide has refused a
// shared pid or ipc namespace, the host's network is degraded, and a shared uts
// namespace is harmless, because it cannot be changed from inside.
func namespaces(s *specs.Spec, p *Plan) ([]string, error) {
	if p.Mode != ModeAdopt || p.Apart {
		setNamespace(s, specs.LinuxNamespace{Type: specs.UserNamespace})
		setMapping(s, p)
	}
	if p.Userns != "" {
		// runc and crun want the mappings beside the path, as containerd's CRI
		// plugin sends them for the containers of a pod.
		setNamespace(s, specs.LinuxNamespace{Type: specs.UserNamespace, Path: p.Userns})
	}
	for _, t := range []specs.LinuxNamespaceType{specs.MountNamespace, specs.CgroupNamespace} {
		if Namespace(s, t) == nil {
			setNamespace(s, specs.LinuxNamespace{Type: t})
		}
	}
	return nil, nil
}

func setNamespace(s *specs.Spec, n specs.LinuxNamespace) {
	if have := Namespace(s, n.Type); have != nil {
		*have = n
		return
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, n)
}

func setMapping(s *specs.Spec, p *Plan) {
	s.Linux.UIDMappings = p.Mapping.SpecUIDs()
	s.Linux.GIDMappings = p.Mapping.SpecGIDs()
}
