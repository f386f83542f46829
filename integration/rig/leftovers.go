// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// Leftovers is everything that containers could leave behind, counted by name.
type Leftovers struct {
	Mounts    map[string]int // "type source on mountpoint", of the whole mount namespace
	Processes map[string]int // command lines; zombies do not count
	Cgroups   map[string]int // paths
	Files     map[string]int // below /run, the daemons' TMPDIR, and bundles
}

// Diff returns a line for all that is there but was not before ("+") and the
// other way round ("-"), sorted.
func (before Leftovers) Diff(after Leftovers) []string {
	var lines []string
	for _, part := range []struct {
		name          string
		before, after map[string]int
	}{
		{"mount", before.Mounts, after.Mounts},
		{"process", before.Processes, after.Processes},
		{"cgroup", before.Cgroups, after.Cgroups},
		{"file", before.Files, after.Files},
	} {
		all := map[string]int{}
		maps.Copy(all, part.before)
		maps.Copy(all, part.after)
		for _, key := range slices.Sorted(maps.Keys(all)) {
			switch n := part.after[key] - part.before[key]; {
			case n > 0:
				lines = append(lines, fmt.Sprintf("+%d %s %s", n, part.name, key))
			case n < 0:
				lines = append(lines, fmt.Sprintf("%d %s %s", n, part.name, key))
			}
		}
	}
	return lines
}

// patience is how long something may take to go away. containerd deletes some
// things after it has answered.
const patience = 30 * time.Second

// MustMatch fails a test unless the rig soon looks as it did before. Lines of Diff
// that one of the functions ignores do not count.
func MustMatch(t testing.TB, before Leftovers, ignores ...func(line string) bool) {
	t.Helper()
	var diff []string
	same := Within(patience, func() bool {
		diff = slices.DeleteFunc(before.Diff(MustSnapshot(t)), func(line string) bool {
			return slices.ContainsFunc(ignores, func(ignore func(string) bool) bool { return ignore(line) })
		})
		return len(diff) == 0
	})
	if !same {
		t.Errorf("left behind %s later:\n  %s", Patiently(patience), strings.Join(diff, "\n  "))
	}
}

// NothingLeft demands that the rig looks the same when the test ends as it does now.
func NothingLeft(t testing.TB, ignores ...func(line string) bool) {
	t.Helper()
	before := MustSnapshot(t)
	t.Cleanup(func() { MustMatch(t, before, ignores...) })
}

// File ignores files among what is left.
func File(line string) bool { return strings.Contains(line, " file ") }
