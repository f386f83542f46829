// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"github.com/opencontainers/runtime-spec/specs-go"
)

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

// AskedClocks are the offsets with which the caller asks for a time namespace; nil if
// it does not.
func AskedClocks(s *specs.Spec) map[string]specs.LinuxTimeOffset {
	if n := Namespace(s, specs.TimeNamespace); n == nil || n.Path != "" {
		return nil
	}
	return s.Linux.TimeOffsets
}

// clocks joins the time namespace that the shim has made.
func clocks(s *specs.Spec, p *Plan) ([]string, error) {
	if p.Timens != "" {
		setNamespace(s, specs.LinuxNamespace{Type: specs.TimeNamespace, Path: p.Timens})
		s.Linux.TimeOffsets = nil
	}
	return nil, nil
}
