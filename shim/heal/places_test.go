// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"slices"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/shim/lxcfs"
)

// TestPlaces has the lives of mount namespaces: what happens to one, and then what is
// owed to it by an lxcfs that serves a and b.
func TestPlaces(t *testing.T) {
	t.Parallel()
	both := []lxcfs.File{{Name: "a"}, {Name: "b"}}
	for _, c := range []struct {
		name    string
		places  places
		events  func(p places)
		lacking bool
		want    []string
	}{
		{"in order", newPlaces(true, "a", "b"), nil, false, nil},
		{"a newer server has one more", newPlaces(true, "a"), nil, false, []string{"b"}},
		{"the other one was unmounted by the container", newPlaces(true, "a", "b"), func(p places) { p.detached("a") }, true, []string{"a"}},
		{"it is back", newPlaces(true, "a", "b"), func(p places) { p.detached("a"); p.settled("a"); p.served() }, false, nil},
		{"a server without b, then one with it", newPlaces(true, "a", "b"), func(p places) {
			p.detached("a")
			p.detached("b")
			p.settled("a")
			p.served()
		}, false, []string{"b"}},
		{"made without lxcfs", newPlaces(true), nil, true, []string{"a", "b"}},
		{"got its first", newPlaces(true), func(p places) { p.settled("a"); p.served() }, false, []string{"b"}},
		{"inner", newPlaces(false), nil, false, nil},
		{"inner, dead", newPlaces(false), func(p places) { p.detached("a") }, true, []string{"a"}},
		{"inner, back", newPlaces(false), func(p places) { p.detached("a"); p.settled("a"); p.served() }, false, nil},
		{"inner, gone from lxcfs", newPlaces(false), func(p places) { p.detached("b"); p.served() }, false, nil},
	} {
		if c.events != nil {
			c.events(c.places)
		}
		if got := c.places.lacking(); got != c.lacking {
			t.Errorf("%s: lacking %v", c.name, got)
		}
		for round := range 2 { // it changes nothing by itself
			var got []string
			for _, f := range c.places.diff(both) {
				got = append(got, f.Name)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s, round %d: owed %v, want %v", c.name, round, got, c.want)
			}
		}
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		s    situation
		want int // ms
	}{
		{"in order", situation{tries: 3}, -1},
		{"lxcfs has just died", situation{pending: true}, 250},
		{"it does not come", situation{pending: true, tries: 6}, 16000},
		{"it will not come soon", situation{pending: true, tries: maxTries}, -1},
		{"it hangs", situation{pending: true, hung: true, tries: maxTries}, 15000},
		{"it hangs, and nobody needs it", situation{hung: true}, -1},
		{"a container's root hangs", situation{late: true}, 15000},
	} {
		want := time.Duration(c.want) * time.Millisecond
		if c.want < 0 {
			want = -1
		}
		if got := c.s.timeout(); got != want {
			t.Errorf("%s: %v, want %v", c.name, got, want)
		}
	}
}
