// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestLimitOfOpenFilesWasRaisedAgainstTheCallersWill: docker run --ulimit
// nofile=1000:2000 had a hard limit of what the host grants.
func TestLimitOfOpenFilesWasRaisedAgainstTheCallersWill(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		in   []specs.POSIXRlimit
		want specs.POSIXRlimit
	}{
		{"none", nil, specs.POSIXRlimit{Type: rlimitNofile, Soft: 1024, Hard: 65536}},
		{"containerd's default", []specs.POSIXRlimit{{Type: rlimitNofile, Soft: 1024, Hard: 1024}}, specs.POSIXRlimit{Type: rlimitNofile, Soft: 1024, Hard: 65536}},
		{"lower", []specs.POSIXRlimit{{Type: rlimitNofile, Soft: 1000, Hard: 2000}}, specs.POSIXRlimit{Type: rlimitNofile, Soft: 1000, Hard: 2000}},
		{"higher than the host grants", []specs.POSIXRlimit{{Type: rlimitNofile, Soft: 1 << 20, Hard: 1 << 20}}, specs.POSIXRlimit{Type: rlimitNofile, Soft: 65536, Hard: 65536}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			proc := &specs.Process{Rlimits: tc.in}
			rlimits(proc, &Nesting{Limits: map[string]uint64{rlimitNofile: 65536}})
			if len(proc.Rlimits) != 1 || proc.Rlimits[0] != tc.want {
				t.Errorf("got %+v, want %+v", proc.Rlimits, tc.want)
			}
		})
	}
}

// TestDomainnameWasRefusedByTheKernel: docker run --domainname failed with "open
// sysctl kernel.domainname file: permission denied".
func TestDomainnameWasRefusedByTheKernel(t *testing.T) {
	t.Parallel()
	s := &specs.Spec{Linux: &specs.Linux{Sysctl: map[string]string{domainnameKey: "example", "kernel.shmmni": "9"}}}
	for range 2 {
		if _, err := sysctls(s, &Plan{}); err != nil {
			t.Fatal(err)
		}
		if s.Domainname != "example" || len(s.Linux.Sysctl) != 1 || s.Linux.Sysctl["kernel.shmmni"] != "9" {
			t.Errorf("domain name %q, sysctls %v", s.Domainname, s.Linux.Sysctl)
		}
	}
}
