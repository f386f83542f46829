// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"slices"
	"testing"

	"github.com/isolate-shim/isolate/shim/lxcfs"
)

func TestState(t *testing.T) {
	t.Parallel()
	check := func(when string, s *state, lacks bool, wants, not []string) {
		t.Helper()
		if s.lacks() != lacks {
			t.Errorf("%s: lacks %v", when, !lacks)
		}
		for _, name := range wants {
			if !s.wants(name) {
				t.Errorf("%s: does not want %s", when, name)
			}
		}
		for _, name := range not {
			if s.wants(name) {
				t.Errorf("%s: wants %s", when, name)
			}
		}
	}
	s := newState([]string{"a", "b"}, true)
	check("at first", s, false, []string{"new"}, []string{"a", "b"})
	s.detached("a")
	check("one dead", s, true, []string{"a"}, []string{"b"}) // b is gone by the container's doing
	s.settle("a")
	check("one back", s, false, nil, []string{"a", "b"})
	s.detached("a")
	s.detached("b")
	s.settle("a")
	s.healed() // by a server without b
	check("another server", s, false, []string{"b"}, []string{"a"})

	none := newState(nil, true)
	check("made without lxcfs", none, true, []string{"a"}, nil)
	none.settle("a")
	check("got its first", none, false, []string{"b"}, []string{"a"})

	inner := newState(nil, false)
	check("inner", inner, false, nil, []string{"a"})
	inner.detached("a")
	check("inner, dead", inner, true, []string{"a"}, []string{"b"})
	inner.settle("a")
	check("inner, back", inner, false, nil, []string{"a", "b"})
}

func TestDead(t *testing.T) {
	t.Parallel()
	bound := []lxcfs.MountedFile{{Name: "a", ID: 1}, {Name: "a", ID: 2}, {Name: "b", ID: 3}}
	got := dead(bound, func(b lxcfs.MountedFile) bool { return b.Name == "a" })
	if !slices.Equal(got, []lxcfs.MountedFile{bound[1], bound[0]}) {
		t.Errorf("%v: not the topmost first", got)
	}
	if got := dead(bound, func(lxcfs.MountedFile) bool { return false }); len(got) != 0 {
		t.Error(got)
	}
}
