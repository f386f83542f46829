// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// crun reports a wrong pid for a container that joins a pid namespace and gets a
// new time namespace.
func TestTimeNamespaceInJoinedPIDs(t *testing.T) {
	t.Parallel()
	own, joined := specs.LinuxNamespace{Type: specs.PIDNamespace}, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: "/proc/7/ns/pid"}
	clocks := specs.LinuxNamespace{Type: specs.TimeNamespace}
	for _, c := range []struct {
		name       string
		misreports bool
		namespaces []specs.LinuxNamespace
		offset     int64
		kept       bool
		warned     bool
	}{
		{"as Docker 29 asks", true, []specs.LinuxNamespace{joined, clocks}, 0, false, false},
		{"with clocks of its own", true, []specs.LinuxNamespace{clocks, joined}, 5, false, true},
		{"of a runtime that can", false, []specs.LinuxNamespace{joined, clocks}, 5, true, false},
		{"with its own pids", true, []specs.LinuxNamespace{own, clocks}, 5, true, false},
		{"joined as well", true, []specs.LinuxNamespace{joined, {Type: specs.TimeNamespace, Path: "/proc/7/ns/time"}}, 0, true, false},
		{"the host's pids", true, []specs.LinuxNamespace{clocks}, 0, true, false},
	} {
		s := &specs.Spec{Linux: &specs.Linux{Namespaces: c.namespaces, TimeOffsets: map[string]specs.LinuxTimeOffset{"boottime": {Secs: c.offset}}}}
		for range 2 {
			warnings, err := timens(s, &Plan{MisreportsPIDs: c.misreports})
			if err != nil || (len(warnings) > 0) != c.warned {
				t.Errorf("%s: %q, %v", c.name, warnings, err)
			}
			if kept := Namespace(s, specs.TimeNamespace) != nil; kept != c.kept || kept != (s.Linux.TimeOffsets != nil) {
				t.Errorf("%s: kept %v, offsets %v", c.name, kept, s.Linux.TimeOffsets)
			}
			c.warned = false // not a second time
		}
	}
}
