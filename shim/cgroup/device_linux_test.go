// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"slices"
	"testing"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func device(kind string, major, minor int64) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: "rwm"}
}

// answer is what the last rule that fits says, as the kernel's program does.
func answer(rules []specs.LinuxDeviceCgroup, kind string, major, minor int64) bool {
	fits := func(want *int64, have int64) bool { return *want == -1 || *want == have }
	for _, r := range slices.Backward(rules) {
		if (r.Type == "a" || r.Type == kind) && fits(r.Major, major) && fits(r.Minor, minor) {
			return r.Allow
		}
	}
	return false
}

// TestDisksStayClosed: a device program that the runtime replaces, as crun does in
// an update of resources, opened the machine's disks.
func TestDisksStayClosed(t *testing.T) {
	t.Parallel()
	type open struct {
		kind         string
		major, minor int64
	}
	null, console, sda, sdb, loop := open{"c", 1, 3}, open{"c", 5, 1}, open{"b", 8, 0}, open{"b", 8, 16}, open{"b", 7, 3}
	for _, tt := range []struct {
		name  string
		given []specs.LinuxDeviceCgroup
		opens []open
	}{
		{"nothing given", nil, []open{null}},
		{"a disk", []specs.LinuxDeviceCgroup{device("b", 8, 16)}, []open{null, sdb}},
		{"all loop devices", []specs.LinuxDeviceCgroup{device("b", 7, -1)}, []open{null, loop}},
		{"the console", []specs.LinuxDeviceCgroup{device("c", 5, 1), device("c", 8, 0)}, []open{null, console}},
		{"every terminal", []specs.LinuxDeviceCgroup{device("c", 5, -1)}, []open{null, console}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rules := bounds(tt.given)
			for _, o := range []open{null, console, sda, sdb, loop} {
				if got, want := answer(rules, o.kind, o.major, o.minor), slices.Contains(tt.opens, o); got != want {
					t.Errorf("%v opens: %v", o, got)
				}
			}
			if _, _, err := cgroup2.DeviceFilter(rules); err != nil {
				t.Error(err)
			}
		})
	}
}
