// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"slices"
	"testing"

	"github.com/isolate-shim/isolate/shim/lxcfs"
)

func TestSuspicion(t *testing.T) {
	t.Parallel()
	calm, waiting, stopped := sign{}, sign{waiting: true}, sign{stopped: true}
	repeat := func(s sign, n int) []sign { return slices.Repeat([]sign{s}, n) }
	for _, c := range []struct {
		name  string
		hangs bool
		seen  []sign
		want  []int // the looks that led to a question
	}{
		{"all is well", false, repeat(calm, 100), nil},
		{"somebody happens to be served", false, []sign{waiting, calm, waiting, calm, waiting}, nil},
		{"somebody waits", false, []sign{calm, waiting, waiting}, []int{2}},
		{"stopped", false, []sign{calm, stopped}, []int{1}},
		{"always busy", false, repeat(waiting, 200), []int{1, 5, 13, 29, 61, 125, 189}},
		{"another lxcfs is stopped", false, repeat(stopped, 70), []int{0, 2, 6, 14, 30, 62}},
		{"busy, calm, busy", false, []sign{waiting, waiting, calm, waiting, waiting}, []int{1, 4}},
		{"it still hangs", true, repeat(stopped, 100), nil},
		{"somebody still waits", true, repeat(waiting, 100), nil},
		{"it goes on", true, []sign{stopped, stopped, calm}, []int{2}},
		{"it hangs, and nobody waits", true, repeat(calm, 70), []int{0, 2, 6, 14, 30, 62}},
	} {
		var s suspicion
		var got []int
		for n, seen := range c.seen {
			if s.look(seen, c.hangs) {
				got = append(got, n)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: asked at %v, want %v", c.name, got, c.want)
		}
	}
}

func TestConnections(t *testing.T) {
	t.Parallel()
	const lines = `36 35 0:61 / /var/lib/lxcfs rw shared:1 - fuse.lxcfs lxcfs rw,user_id=0
37 35 0:62 / /old rw - fuse.lxcfs lxcfs rw
38 35 0:61 /proc /again rw - fuse.lxcfs lxcfs rw
x
39 35 0:x / /bad rw - fuse.lxcfs lxcfs rw
`
	if got := connections([]byte(lines)); !slices.Equal(got, []lxcfs.Device{{0, 61}, {0, 62}}) {
		t.Errorf("%v", got)
	}
}
