// SPDX-License-Identifier: Apache-2.0

package cgroup

import "testing"

func TestPath(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{ // "" for an error
		"0::/a/b\n":                              "/a/b",
		"3:memory:/m\n2:cpu,cpuacct:/c\n0::/u\n": "/m",
		"2:cpu,cpuacct:/c\n0::/u\n":              "/u",
		"2:cpu,cpuacct:/c\n":                     "",
		"0::/../x\n":                             "",
		"nonsense\n":                             "",
	} {
		if got, err := Path(content, "memory"); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", content, got, err)
		}
	}
}
