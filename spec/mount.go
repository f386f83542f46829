// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
)

// mountOptions repairs uid= and gid= options of the file systems that the
// runtime mounts inside the user namespace (tmpfs, devpts, mqueue, shm). The
// kernel reads these ids in the mounter's user namespace and answers EINVAL for
// one that is not mapped; without the option the mount belongs to the
// container's root, which is what every caller means.
func mountOptions(s *specs.Spec, p *Plan) ([]string, error) {
	var warnings []string
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if isBind(*m) {
			m.Type = "bind" // those of CDI have none, of which crun 1.21 dies in a pod with a user namespace
			continue
		}
		m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool {
			if mapped(o, p.Mapping) {
				return false
			}
			warnings = append(warnings, fmt.Sprintf("mount %s: option %s is outside the container's id range and was dropped", m.Destination, o))
			return true
		})
	}
	return warnings, nil
}

// mapped is false for a uid= or gid= option that the mapping does not cover.
func mapped(option string, m idmap.Mapping) bool {
	key, value, _ := strings.Cut(option, "=")
	if key != "uid" && key != "gid" {
		return true
	}
	id, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return true // the kernel's error names it
	}
	var ok bool
	if key == "uid" {
		_, ok = m.UIDToHost(idmap.ContainerID(id))
	} else {
		_, ok = m.GIDToHost(idmap.ContainerID(id))
	}
	return ok
}
