// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"slices"
	"testing"
)

func TestDiff(t *testing.T) {
	t.Parallel()
	some := Leftovers{
		Mounts:    map[string]int{"proc proc on /proc": 2},
		Processes: map[string]int{"containerd": 1},
		Files:     map[string]int{"/run/a": 1},
	}
	for _, test := range []struct {
		name          string
		before, after Leftovers
		want          []string
	}{
		{name: "nothing", before: some, after: some},
		{name: "all new", after: some, want: []string{"+2 mount proc proc on /proc", "+1 process containerd", "+1 file /run/a"}},
		{name: "all gone", before: some, want: []string{"-2 mount proc proc on /proc", "-1 process containerd", "-1 file /run/a"}},
		{
			name: "one more", before: some,
			after: Leftovers{Mounts: map[string]int{"proc proc on /proc": 3}, Processes: some.Processes, Files: some.Files},
			want:  []string{"+1 mount proc proc on /proc"},
		},
		{
			name: "another of a kind", before: Leftovers{Cgroups: map[string]int{"/a": 1}}, after: Leftovers{Cgroups: map[string]int{"/b": 1}},
			want: []string{"-1 cgroup /a", "+1 cgroup /b"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := test.before.Diff(test.after); !slices.Equal(got, test.want) {
				t.Errorf("Diff() = %q, want %q", got, test.want)
			}
		})
	}
}
