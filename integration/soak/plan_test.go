// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"reflect"
	"slices"
	"testing"
)

// TestPlanFollowsFromSeedAndIndex plans a life alone and among others.
func TestPlanFollowsFromSeedAndIndex(t *testing.T) {
	var all []Life
	for i := range 50 {
		all = append(all, Plan(7, i))
	}
	if again := Plan(7, 31); !reflect.DeepEqual(again, all[31]) {
		t.Errorf("planned again: %v, before %v", again, all[31])
	}
	if other := Plan(8, 31); other.String() == all[31].String() {
		t.Errorf("another seed, the same life: %v", other)
	}
}

// TestPlanHasEverything of a thousand lives: all kinds, all faults, and all that a
// client does. What it does fits together.
func TestPlanHasEverything(t *testing.T) {
	seen := map[string]int{}
	for i := range 1000 {
		l := Plan(1, i)
		seen[string(l.Kind)]++
		running := map[string]bool{}
		for _, s := range l.Steps {
			seen[string(s.Do)]++
			switch s.Do {
			case Run, Start:
				running[s.Container] = true
			default:
				if !running[s.Container] {
					t.Fatalf("%v: %s before run", l, s.Do)
				}
			}
			if s.Do == Remove {
				running[s.Container] = false
			}
			if !slices.Contains(l.Containers(), s.Container) {
				t.Fatalf("%v: no container %q", l, s.Container)
			}
		}
		if len(l.Faults) == 0 {
			seen["no fault"]++
		}
		for _, f := range l.Faults {
			seen[string(f.Name)]++
			if f.Step >= len(l.Steps) {
				t.Fatalf("%v: no step %d", l, f.Step)
			}
			if do := l.Steps[f.Step].Do; (f.Name == KillRuntime || f.Name == StopRuntime) && (do == Kill || do == Metrics) {
				t.Errorf("%v: no runtime to hit", l)
			}
			if f.Verb == "kill" && !slices.ContainsFunc(l.Steps, func(s Step) bool { return s.Do == Term }) {
				t.Errorf("%v: no runtime is asked for a signal", l)
			}
			seen["by "+f.Verb]++
			if (f.Verb != "") != slices.Contains(byVerb, f.Name) {
				t.Fatalf("%v: runtime's command %q", l, f.Verb)
			}
		}
	}
	for _, k := range kinds {
		if seen[string(k)] < 50 {
			t.Errorf("%d lives of kind %q", seen[string(k)], k)
		}
	}
	for _, n := range slices.Concat(moments, byVerb) {
		if seen[string(n)] < 5 {
			t.Errorf("%d times %q", seen[string(n)], n)
		}
	}
	for _, d := range []Do{Run, Start, Exec, Inside, Pause, Resume, Metrics, Term, Kill, Remove} {
		if seen[string(d)] < 20 {
			t.Errorf("%d times %q", seen[string(d)], d)
		}
	}
	for _, verb := range []string{"create", "start", "exec", "pause", "resume", "kill", "delete"} {
		if seen["by "+verb] < 3 {
			t.Errorf("%d faults by %q", seen["by "+verb], verb)
		}
	}
	if n := seen["no fault"]; n < 400 || n > 600 {
		t.Errorf("%d of 1000 lives have no fault", n)
	}
}

// TestMarksOfLivesDiffer: one's is in no id of another.
func TestMarksOfLivesDiffer(t *testing.T) {
	if one, other := (Life{Index: 1}), (Life{Index: 11}); one.Mark() != "i1-" || other.ID("a") != "i11-a" {
		t.Errorf("%q and %q", one.Mark(), other.ID("a"))
	}
}
