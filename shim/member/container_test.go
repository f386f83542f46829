// SPDX-License-Identifier: Apache-2.0

package member

import (
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/ns"
)

var (
	own, other, inner = ns.ID{Dev: 4, Ino: 1}, ns.ID{Dev: 4, Ino: 2}, ns.ID{Dev: 4, Ino: 3}
	pids              = ns.ID{Dev: 4, Ino: 4}
	ids               = idmap.Contiguous(100000, 65536)
)

// first is the first process of a container.
func first() traits {
	return traits{users: []ns.ID{own}, mapping: ids, pids: []ns.ID{pids}, numbers: []int{70, 1}, cgroups: inside}
}

func with(change func(*traits)) traits {
	t := first()
	change(&t)
	return t
}

func TestForeign(t *testing.T) {
	t.Parallel()
	known := Container{Mapping: ids, Userns: own, PIDs: pids}
	fresh := Container{Mapping: ids}
	for _, c := range []struct {
		name string
		of   Container
		t    traits
		want string // in the reason, "" for none
	}{
		{"first process", fresh, first(), ""},
		{"first process of a known one", known, first(), ""},
		{"process of the host", fresh, traits{mapping: idmap.Contiguous(0, 1<<32-1), numbers: []int{70}}, "host's user namespace"},
		{"process of the host in the cgroup", fresh, traits{mapping: idmap.Contiguous(0, 1<<32-1), numbers: []int{70}, cgroups: inside}, "host's user namespace"},
		{"not of its cgroups", known, with(func(t *traits) { t.cgroups = elsewhere }), "none of the container's cgroups"},
		{"cgroups not known", known, with(func(t *traits) { t.cgroups = unknown }), ""},
		{"host's pid namespace", known, with(func(t *traits) { t.pids = nil }), "host's pid namespace"},
		{"other ids", fresh, with(func(t *traits) { t.mapping = idmap.Contiguous(200000, 65536) }), "it has the ids 0:200000:65536"},
		{"more ids", fresh, with(func(t *traits) { t.mapping = idmap.Contiguous(100000, 65537) }), "it has the ids"},
		{"inner container", known, with(func(t *traits) {
			t.users, t.mapping = []ns.ID{inner, own}, idmap.Contiguous(100100, 100)
			t.pids, t.numbers = []ns.ID{inner, pids}, []int{70, 8, 1}
		}), ""},
		{"inner one, of a container of which no namespace is known", fresh, with(func(t *traits) {
			t.users, t.mapping = []ns.ID{inner, other}, idmap.Contiguous(100100, 100)
		}), ""},
		{"inner one that is not set up yet", known, with(func(t *traits) { t.users, t.mapping = []ns.ID{inner, own}, idmap.Mapping{} }), ""},
		{"no ids, in an unknown namespace", fresh, with(func(t *traits) { t.mapping = idmap.Mapping{} }), "it has the ids"},
		{"another's namespace", known, with(func(t *traits) { t.users = []ns.ID{other} }), "user namespace that is not"},
		{"another's pids", known, with(func(t *traits) { t.pids = []ns.ID{other} }), "pid namespace that is not"},
		{"another's namespace with the number of ours", known, with(func(t *traits) { t.mapping = idmap.Contiguous(200000, 65536) }), "it has the ids"},
		{"numbers of somebody else", known, with(func(t *traits) { t.numbers = []int{71, 1} }), "number [71 1]"},
		{"no numbers", known, with(func(t *traits) { t.numbers = nil }), "number []"},
		{"unconfined, made by our runtime", fresh, traits{mapping: idmap.Contiguous(0, 1<<32-1), numbers: []int{70, 1}, pids: []ns.ID{pids}, cgroups: inside, child: true}, ""},
		{"another child of ours", fresh, traits{mapping: idmap.Contiguous(0, 1<<32-1), numbers: []int{70}, cgroups: unknown, child: true}, "host's user namespace"},
		{"child of ours in another container", known, with(func(t *traits) { t.child, t.cgroups = true, elsewhere }), "none of the container's cgroups"},
	} {
		switch got := c.of.foreign(70, c.t); {
		case c.want == "" && got != "":
			t.Errorf("%s: %s", c.name, got)
		case !strings.Contains(got, c.want):
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestUnconfined(t *testing.T) {
	t.Parallel()
	split := idmap.Mapping{
		UIDs: []idmap.Range{{Container: 1000, Host: 101000, Size: 64536}, {Container: 0, Host: 100000, Size: 1000}},
		GIDs: ids.GIDs,
	}
	fresh := Container{Mapping: ids}
	for _, c := range []struct {
		name string
		of   Container
		t    traits
		own  bool
		want string
	}{
		{"as planned", fresh, first(), true, ""},
		{"in the namespace that was made for it", Container{Mapping: ids, Userns: own}, first(), true, ""},
		{"map written in pieces", fresh, with(func(t *traits) { t.mapping = split }), true, ""},
		{"pid namespace of a pod", fresh, with(func(t *traits) { t.numbers = []int{70, 12} }), false, ""},
		{"host's user namespace", fresh, with(func(t *traits) { t.users = nil }), true, "host's user namespace"},
		{"another namespace than was made", Container{Mapping: ids, Userns: other}, first(), true, "another user namespace"},
		{"one below that", Container{Mapping: ids, Userns: own}, with(func(t *traits) { t.users = []ns.ID{inner, own} }), true, "another user namespace"},
		{"ids of the host", fresh, with(func(t *traits) { t.mapping = idmap.Contiguous(0, 65536) }), true, "0:0:65536 instead of 0:100000:65536"},
		{"groups of the host", fresh, with(func(t *traits) { t.mapping.GIDs = idmap.Contiguous(0, 65536).GIDs }), true, "instead of"},
		{"fewer ids", fresh, with(func(t *traits) { t.mapping = idmap.Contiguous(100000, 65535) }), true, "instead of"},
		{"no ids", fresh, with(func(t *traits) { t.mapping = idmap.Mapping{} }), true, "instead of"},
		{"host's pid namespace", fresh, with(func(t *traits) { t.pids = nil }), false, "host's pid namespace"},
		{"not the first one", fresh, with(func(t *traits) { t.numbers = []int{70, 2} }), true, "number 2"},
	} {
		switch got := c.of.unconfined(c.t, c.own); {
		case c.want == "" && got != "":
			t.Errorf("%s: %s", c.name, got)
		case !strings.Contains(got, c.want):
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestGroupOf(t *testing.T) {
	t.Parallel()
	mounts := []*mountinfo.Info{
		{Mountpoint: "/sys/fs/cgroup", Root: "/"},
		{Mountpoint: "/sys/fs/cgroup/memory", Root: "/docker/x"},
	}
	for dir, want := range map[string]string{
		"/sys/fs/cgroup/default/a":        "/default/a",
		"/sys/fs/cgroup/memory/default/a": "/docker/x/default/a",
		"/sys/fs/cgroup/memory":           "/memory", // of version 2, if somebody mounts it so
		"/sys/fs/cgroup":                  "",
		"/elsewhere":                      "",
	} {
		if got := groupOf(dir, mounts); got != want {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
}

func TestIn(t *testing.T) {
	t.Parallel()
	const content = "12:cpu,cpuacct:/\n4:memory:/default/a\n0::/user.slice\n"
	for group, want := range map[string]bool{
		"/default/a": true, "/default": true, "/default/a/b": false, "/default/ab": false, "/def": false, "/user.slice": true,
	} {
		if got := in(content, []string{"/nothing", group}); got != want {
			t.Errorf("%s: %v", group, got)
		}
	}
}
