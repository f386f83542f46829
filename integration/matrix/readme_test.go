// SPDX-License-Identifier: Apache-2.0

package matrix

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// TestReadmeKernels: the table of kernels in README.md says what the probes declare,
// no more and no less, and for each version there are legs with an older kernel and
// with one that is at least as new, so that what is said has been tried.
func TestReadmeKernels(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	table := kernelTable(string(text))
	if len(table) == 0 {
		t.Fatal("README.md has no table of kernels")
	}
	if !slices.IsSortedFunc(table, compareVersions) {
		t.Errorf("the table is not in the order of versions: %q", table)
	}
	minimum := table[0]
	since := rig.Since()
	for feature, version := range since {
		if compareVersions(version, minimum) >= 0 && !slices.Contains(table, version) {
			t.Errorf("the table does not say that Linux %s brought %s", version, feature)
		}
	}
	for _, version := range table {
		declared := slices.Contains(slices.Collect(maps.Values(since)), version)
		run := slices.ContainsFunc(legs, func(l leg) bool { return string(l.kernel) == version })
		if !declared && (!run || version != minimum) {
			t.Errorf("the table has Linux %s, of which no probe knows anything", version)
		}
		newer := slices.ContainsFunc(legs, func(l leg) bool { return compareVersions(string(l.kernel), version) >= 0 })
		older := slices.ContainsFunc(legs, func(l leg) bool { return compareVersions(string(l.kernel), version) < 0 })
		if !newer || !older && version != minimum {
			t.Errorf("no leg has a kernel older than %s, or none has a newer one", version)
		}
	}
}

var kernelRow = regexp.MustCompile(`^\|\s*([0-9]+\.[0-9]+)\s*\|`)

// kernelTable returns the first column of the table that begins with "| Kernel |".
func kernelTable(text string) []string {
	var versions []string
	inside := false
	for line := range strings.Lines(text) {
		switch m := kernelRow.FindStringSubmatch(line); {
		case strings.HasPrefix(line, "| Kernel |"):
			inside = true
		case !strings.HasPrefix(line, "|"):
			inside = false
		case inside && m != nil:
			versions = append(versions, m[1])
		}
	}
	return versions
}

// compareVersions compares "6.3" with "6.15". A minor version that is no number is
// the newest, as in "7.x".
func compareVersions(a, b string) int {
	number := func(version string) (n int) {
		var major, minor int
		if count, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); count < 2 {
			minor = 999
		}
		return major*1000 + minor
	}
	return number(a) - number(b)
}

func TestKernelTable(t *testing.T) {
	t.Parallel()
	const text = "| Kernel | What |\n|---|---|\n| 5.19 | one |\n| 6.3  | two |\n\n| Also | Which |\n|---|---|\n| 7.1 | no kernel |\n"
	if got := kernelTable(text); !slices.Equal(got, []string{"5.19", "6.3"}) {
		t.Errorf("got %q", got)
	}
	if !slices.IsSortedFunc([]string{"5.9", "5.10", "6.3", "6.15", "7.x"}, compareVersions) {
		t.Error("versions are not compared as numbers")
	}
}
