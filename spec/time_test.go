// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestClocks(t *testing.T) {
	t.Parallel()
	own := specs.LinuxNamespace{Type: specs.PIDNamespace}
	offsets := map[string]specs.LinuxTimeOffset{"boottime": {Secs: 5}}
	for _, c := range []struct {
		name       string
		namespaces []specs.LinuxNamespace
		offsets    map[string]specs.LinuxTimeOffset
		want       bool
	}{
		{"its own pids", []specs.LinuxNamespace{own}, nil, true},
		{"the host's pids", nil, nil, false},
		{"another's pids", []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: "/proc/7/ns/pid"}}, nil, false},
		{"a time namespace without offsets, as of Docker 29", []specs.LinuxNamespace{own, {Type: specs.TimeNamespace}}, nil, true},
		{"another's time namespace", []specs.LinuxNamespace{own, {Type: specs.TimeNamespace, Path: "/proc/7/ns/time"}}, nil, false},
		{"the caller's offsets", []specs.LinuxNamespace{own, {Type: specs.TimeNamespace}}, offsets, false},
	} {
		s := &specs.Spec{Linux: &specs.Linux{Namespaces: c.namespaces, TimeOffsets: c.offsets}}
		if got := OwnClocks(s); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if _, err := clocks(s, &Plan{Clocks: &Clocks{Boottime: -9, Monotonic: -7}}); err != nil {
			t.Error(err)
		}
		if got := s.Linux.TimeOffsets["boottime"].Secs == -9; got != c.want {
			t.Errorf("%s: offsets %v", c.name, s.Linux.TimeOffsets)
		}
		if n := Namespace(s, specs.TimeNamespace); c.want && (n == nil || n.Path != "") {
			t.Errorf("%s: %+v", c.name, n)
		}
	}
}
