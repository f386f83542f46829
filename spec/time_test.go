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
		own, asked bool
	}{
		{"its own pids", []specs.LinuxNamespace{own}, nil, true, false},
		{"the host's pids", nil, nil, false, false},
		{"another's pids", []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: "/proc/7/ns/pid"}}, nil, false, false},
		{"a time namespace without offsets, as of Docker 29", []specs.LinuxNamespace{own, {Type: specs.TimeNamespace}}, nil, true, false},
		{"another's time namespace", []specs.LinuxNamespace{own, {Type: specs.TimeNamespace, Path: "/proc/7/ns/time"}}, nil, false, false},
		{"the caller's offsets", []specs.LinuxNamespace{own, {Type: specs.TimeNamespace}}, offsets, false, true},
		{"the caller's offsets and the host's pids", []specs.LinuxNamespace{{Type: specs.TimeNamespace}}, offsets, false, true},
	} {
		s := &specs.Spec{Linux: &specs.Linux{Namespaces: c.namespaces, TimeOffsets: c.offsets}}
		if got := OwnClocks(s); got != c.own {
			t.Errorf("%s: own clocks %v", c.name, got)
		}
		if got := AskedClocks(s) != nil; got != c.asked {
			t.Errorf("%s: asked for clocks %v", c.name, got)
		}
	}
}

// TestJoinsClocks: no runtime is asked for offsets in a namespace that it joins, which
// runc refuses.
func TestJoinsClocks(t *testing.T) {
	t.Parallel()
	for _, namespaces := range [][]specs.LinuxNamespace{nil, {{Type: specs.TimeNamespace}}} {
		s := &specs.Spec{Linux: &specs.Linux{Namespaces: namespaces, TimeOffsets: map[string]specs.LinuxTimeOffset{"boottime": {Secs: 5}}}}
		for range 2 {
			if _, err := clocks(s, &Plan{Timens: "/proc/7/ns/time"}); err != nil {
				t.Error(err)
			}
			if n := Namespace(s, specs.TimeNamespace); n == nil || n.Path != "/proc/7/ns/time" || s.Linux.TimeOffsets != nil {
				t.Errorf("%+v, offsets %v", n, s.Linux.TimeOffsets)
			}
		}
		want := s.Linux.Namespaces
		if _, err := clocks(s, &Plan{}); err != nil || len(s.Linux.Namespaces) != len(want) {
			t.Errorf("without one: %+v, %v", s.Linux.Namespaces, err)
		}
	}
}
