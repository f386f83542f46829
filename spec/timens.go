// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// timens drops a time namespace that the runtime cannot make for a container in
// another one's pid namespace (crun up to 1.24 at least: it makes a second process, and
// reports the pid that it has in there). Docker 29 asks for one without offsets,
// which then is no other than the host's.
func timens(s *specs.Spec, p *Plan) ([]string, error) {
	pids, clocks := Namespace(s, specs.PIDNamespace), Namespace(s, specs.TimeNamespace)
	if !p.MisreportsPIDs || pids == nil || pids.Path == "" || clocks == nil || clocks.Path != "" {
		return nil, nil
	}
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.TimeNamespace })
	offsets := s.Linux.TimeOffsets
	s.Linux.TimeOffsets = nil
	for _, o := range offsets {
		if o != (specs.LinuxTimeOffset{}) {
			return []string{"the clocks are the host's: crun cannot make a time namespace for a container that joins a pid namespace, use runc for that"}, nil
		}
	}
	return nil, nil
}
