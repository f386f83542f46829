// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Clocks are what the container's time namespace adds to the clocks that count
// from the machine's boot, in whole seconds: then its uptime, and the start times
// of its processes, begin near zero.
type Clocks struct {
	Boottime, Monotonic int64
}

// OwnClocks tells whether the container may have clocks of its own. A caller's
// offsets stay, and so does a namespace that it joins. In a pid namespace that is
// shared, the processes of the others have started by other clocks.
func OwnClocks(s *specs.Spec) bool {
	pids := Namespace(s, specs.PIDNamespace)
	if pids == nil || pids.Path != "" || len(s.Linux.TimeOffsets) > 0 {
		return false
	}
	n := Namespace(s, specs.TimeNamespace)
	return n == nil || n.Path == ""
}

func clocks(s *specs.Spec, p *Plan) ([]string, error) {
	if p.Clocks == nil || !OwnClocks(s) {
		return nil, nil
	}
	setNamespace(s, specs.LinuxNamespace{Type: specs.TimeNamespace})
	s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{
		"boottime":  {Secs: p.Clocks.Boottime},
		"monotonic": {Secs: p.Clocks.Monotonic},
	}
	return nil, nil
}
