// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

func TestParseMemberships(t *testing.T) {
	t.Parallel()
	got, err := parseMemberships("4:cpu,cpuacct:/a/b\n1:name=systemd:/x:y (deleted)\n0::/../c\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []membership{
		{Controllers: []string{"cpu", "cpuacct"}, Path: "/a/b"},
		{Controllers: []string{"name=systemd"}, Path: "/x:y (deleted)"},
		{Path: "/../c"},
	}
	if !slices.EqualFunc(got, want, func(a, b membership) bool {
		return a.Path == b.Path && slices.Equal(a.Controllers, b.Controllers)
	}) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, bad := range []string{"x\n", "0:\n", "0::a\n", "\n", "0::"} {
		if got, err := parseMemberships(bad); err == nil {
			t.Errorf("%q was taken for %v", bad, got)
		}
	}
}

func FuzzParseMemberships(f *testing.F) {
	f.Add("4:cpu,cpuacct:/a/b\n0::/\n", "31 23 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n")
	f.Add("0::/../a (deleted)", "1 1 0:1 /a /m rw - cgroup2 x rw\n")
	f.Fuzz(func(t *testing.T, content, table string) {
		all, err := parseMemberships(content)
		if err != nil {
			return
		}
		mounts, err := mountinfo.GetMountsFromReader(strings.NewReader(table), nil)
		if err != nil {
			return
		}
		for _, m := range all {
			where, reason := locate(m, mounts)
			if (reason == "") == (where == place{}) {
				t.Errorf("%v: place %v and reason %q", m, where, reason)
			}
			if where.rel == "" && reason == "" || strings.HasPrefix(where.rel, "/") || slices.Contains(strings.Split(where.rel, "/"), "..") {
				t.Errorf("%v is at %+v", m, where)
			}
		}
	})
}

func FuzzParseDelegate(f *testing.F) {
	f.Add("cgroup.procs\ncgroup.threads\n")
	f.Fuzz(func(t *testing.T, content string) {
		for _, name := range parseDelegate(content) {
			if strings.ContainsAny(name, "/\n") || name == "" || name == "." || name == ".." {
				t.Errorf("%q is no file name", name)
			}
		}
	})
}

const (
	hybrid = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`
	// A container with the host's cgroup namespace: runtimes bind its own group.
	bound = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory\n" +
		"36 31 0:32 /docker/abcd /other ro - cgroup cgroup rw,memory\n"
	pure = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
)

func TestLocate(t *testing.T) {
	t.Parallel()
	memory := func(path string) membership { return membership{Controllers: []string{"memory"}, Path: path} }
	for _, c := range []struct {
		name   string
		m      membership
		mounts string
		want   string
		reason string
	}{
		{name: "v1", m: memory("/k8s/a"), mounts: hybrid, want: "/sys/fs/cgroup/memory/k8s/a"},
		{name: "v1 co-mounted", m: membership{Controllers: []string{"cpuacct", "cpu"}, Path: "/a"}, mounts: hybrid, want: "/sys/fs/cgroup/cpu,cpuacct/a"},
		{name: "v1 named", m: membership{Controllers: []string{"name=systemd"}, Path: "/a"}, mounts: hybrid, want: "/sys/fs/cgroup/systemd/a"},
		{name: "v2 of hybrid", m: membership{Path: "/a"}, mounts: hybrid, want: "/sys/fs/cgroup/unified/a"},
		{name: "v2", m: membership{Path: "/a/b"}, mounts: pure, want: "/sys/fs/cgroup/a/b"},
		{name: "below a bound group", m: memory("/docker/abc/ctr"), mounts: bound, want: "/sys/fs/cgroup/memory/ctr"},
		{name: "other name, same start", m: memory("/docker/abcde"), mounts: bound, reason: "not below"},
		{name: "bound group itself", m: memory("/docker/abc"), mounts: bound, reason: "root of what is mounted"},
		{name: "not mounted", m: membership{Controllers: []string{"hugetlb"}, Path: "/a"}, mounts: hybrid, reason: "not mounted"},
		{name: "v2 not mounted", m: membership{Path: "/a"}, mounts: bound, reason: "not mounted"},
		{name: "root group", m: memory("/"), mounts: hybrid, reason: "root group"},
		{name: "outside", m: memory("/../a"), mounts: hybrid, reason: "outside"},
		{name: "unclean", m: memory("/a/../../b"), mounts: hybrid, reason: "outside"},
		{name: "deleted", m: memory("/a (deleted)"), mounts: hybrid, reason: "deleted"},
		{name: "mount of another namespace's group", m: memory("/a"), mounts: "1 1 0:1 /../.. /m rw - cgroup cgroup rw,memory\n", reason: "not below"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			where, reason := locate(c.m, mounts(t, c.mounts))
			if c.want != "" && (where.String() != c.want || reason != "") {
				t.Errorf("got %q, %q; want %q", where, reason, c.want)
			}
			if c.want == "" && (where != place{} || !strings.Contains(reason, c.reason)) {
				t.Errorf("got %v, %q; want a reason with %q", where, reason, c.reason)
			}
		})
	}
}

func TestNoLeaf(t *testing.T) {
	t.Parallel()
	const inside = "30 24 0:26 /a/b /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate\n"
	for _, c := range []struct {
		name   string
		own    bool
		mounts string
		want   string
	}{
		{name: "wanted", mounts: inside},
		{name: "no namespace", own: true, mounts: inside, want: "no cgroup namespace"},
		{name: "no mount", mounts: strings.ReplaceAll(inside, "/sys/fs/cgroup", "/mnt"), want: "nothing is mounted"},
		{name: "read-only mount", mounts: strings.Replace(inside, "rw,nosuid", "ro,nosuid", 1), want: "read-only"},
		{name: "read-only superblock", mounts: strings.Replace(inside, "rw,nsdelegate", "ro", 1), want: "read-only"},
		{name: "v1", mounts: hybrid, want: "not pure"},
		{name: "covered", mounts: inside + "31 30 0:5 / /sys/fs/cgroup rw - tmpfs x rw\n", want: "not pure"},
		{name: "another group", mounts: strings.Replace(inside, "/a/b", "/a", 1), want: "another group"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := noLeaf(membership{Path: "/a/b"}, c.own, mounts(t, c.mounts))
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func mounts(t *testing.T, table string) []*mountinfo.Info {
	t.Helper()
	all, err := mountinfo.GetMountsFromReader(strings.NewReader(table), nil)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestHasDevices(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		"0::/a\n": "unified",
		"4:devices:/a\n3:cpu,cpuacct:/a\n0::/a\n": "devices",
		"3:cpu,cpuacct:/a\n0::/\n":                "unified",
		"3:cpu,cpuacct:/a\n1:name=systemd:/\n":    "",
	} {
		all, err := parseMemberships(content)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, m := range all {
			if hasDevices(m, all) {
				got += m.String()
			}
		}
		if got != want {
			t.Errorf("%q: device rules are in %q, want %q", content, got, want)
		}
	}
}
