// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"strings"
	"testing"
)

func TestRequirementCheck(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		requirement Requirement
		missing     string // a part of it
		fails       bool
	}{
		{requirement: Kernel("2.6")},
		{requirement: Kernel("999.0"), missing: "kernel is "},
		{requirement: Kernel("new"), fails: true},
		{requirement: Command("sh")},
		{requirement: Command("no-such-program"), missing: "no no-such-program"},
		{requirement: Command(""), fails: true},
		{requirement: "a miracle", fails: true},
		{requirement: "", fails: true},
	} {
		missing, err := test.requirement.check()
		if (err != nil) != test.fails {
			t.Errorf("check of %q: error %v, want one: %t", test.requirement, err, test.fails)
		}
		if (missing == nil) != (test.missing == "") || missing != nil && !strings.Contains(missing.what, test.missing) {
			t.Errorf("check of %q: missing %v, want %q", test.requirement, missing, test.missing)
		}
	}
}

// TestNoSkip: only what a requirement declares of kernels is excused, and only
// where kernels of all ages are tested.
func TestNoSkip(t *testing.T) {
	for _, test := range []struct {
		noSkip        string
		tool, ofOlder bool // whether such a lack is a failure
	}{
		{"", false, false},
		{"1", true, true},
		{"kernel", true, false},
	} {
		t.Setenv("ISOLATE_NO_SKIP", test.noSkip)
		if got := (lack{what: "no tool"}).fails(); got != test.tool {
			t.Errorf("ISOLATE_NO_SKIP=%s: no tool fails: %v", test.noSkip, got)
		}
		if (lack{what: "long", unasked: true}).fails() {
			t.Errorf("ISOLATE_NO_SKIP=%s: a test that nobody asked for fails", test.noSkip)
		}
		if got := (lack{what: "kernel is 5.10", ofKernel: true}).fails(); got != test.ofOlder {
			t.Errorf("ISOLATE_NO_SKIP=%s: an older kernel fails: %v", test.noSkip, got)
		}
	}
}

func TestLong(t *testing.T) {
	for value, asked := range map[string]bool{"": false, "0": false, "1": true} {
		t.Setenv("ISOLATE_TEST_LONG", value)
		if missing, err := Long.check(); err != nil || (missing == nil) != asked {
			t.Errorf("ISOLATE_TEST_LONG=%s: missing %v, %v", value, missing, err)
		}
	}
}

func TestParseKernel(t *testing.T) {
	t.Parallel()
	for release, want := range map[string][2]int{
		"6.18.44-fc-v669 #1": {6, 18}, "5.10.0-46-amd64": {5, 10}, "6.1": {6, 1}, "7.2-rc1": {7, 2}, "5.4+": {5, 4},
	} {
		major, minor, err := parseKernel(release)
		if got := [2]int{major, minor}; got != want || err != nil {
			t.Errorf("parseKernel(%q) = %v, %v, want %v", release, got, err, want)
		}
	}
	for _, release := range []string{"", "6", "6.", ".1", "six.one", "6.x"} {
		if _, _, err := parseKernel(release); err == nil {
			t.Errorf("parseKernel(%q) succeeded", release)
		}
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		passed  int
		skipped map[string]int
		want    string
	}{
		{3, nil, "integration: 3 passed, none skipped"},
		{0, map[string]int{"no fuse": 2, "kernel is 5.4": 1}, "integration: 0 passed, skipped: kernel is 5.4 ×1; no fuse ×2"},
	} {
		if got := summary(test.passed, test.skipped); got != test.want {
			t.Errorf("summary() = %q, want %q", got, test.want)
		}
	}
}

func TestMountOptions(t *testing.T) {
	t.Parallel()
	for super, want := range map[string]string{
		"rw,memory": "memory", "rw,cpu,cpuacct": "cpu,cpuacct",
		"rw,xattr,release_agent=/a,name=systemd": "xattr,none,name=systemd",
	} {
		if got := mountOptions(super); got != want {
			t.Errorf("mountOptions(%q) = %q, want %q", super, got, want)
		}
	}
}
