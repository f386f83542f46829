// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

// TestSharedQuotaOfGroups gives a group below the container's quota, and a new one when
// the container's changes, also to less; groups of others keep theirs.
func TestSharedQuotaOfGroups(t *testing.T) {
	p := start(t)
	dirs := enter(t, p, func(m *mountinfo.Info) bool {
		return m.FSType == "cgroup" && slices.Contains(strings.Split(m.VFSOptions, ","), "cpu")
	})
	dir := dirs[0]
	inner, other := filepath.Join(dir, "inner"), filepath.Join(dir, "other")
	write := func(group, file, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(group, file), []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when, group, want string) {
		t.Helper()
		limit, err1 := os.ReadFile(filepath.Join(group, quotaV1))
		period, err2 := os.ReadFile(filepath.Join(group, periodV1))
		if got := strings.Join(strings.Fields(string(limit)+string(period)), " "); got != want {
			t.Errorf("%s: %s has %q, want %q, %v, %v", when, filepath.Base(group), got, want, err1, err2)
		}
	}
	share := func(pid int) {
		t.Helper()
		s := ShareOf(append([]string{"/sys/fs/cgroup/memory"}, dirs...))
		if s == nil {
			t.Fatal("no quota was found")
		}
		if err := s.With(pid); err != nil {
			t.Error(err)
		}
	}
	if s := ShareOf(dirs); s != nil {
		t.Errorf("a group without quota has %v", s.quota)
	}
	write(dir, quotaV1, "100000")
	share(p.Process.Pid)
	check("in its own group", dir, "100000 100000")
	for _, group := range []string{inner, other} {
		if err := os.Mkdir(group, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(inner, "cgroup.procs", fmt.Sprint(p.Process.Pid))
	share(os.Getpid())
	check("for a process of another group", inner, "-1 100000")
	share(p.Process.Pid)
	check("without one", inner, "200000 200000")
	write(other, quotaV1, "50000")
	deep, leaf := filepath.Join(other, "deep"), filepath.Join(other, "deep", leafName)
	if err := os.MkdirAll(leaf, 0o755); err != nil {
		t.Fatal(err)
	}
	write(leaf, "cgroup.procs", fmt.Sprint(p.Process.Pid))
	share(p.Process.Pid)
	check("below one that has less", deep, "-1 200000")
	write(other, quotaV1, "-1")
	share(p.Process.Pid)
	check("above a leaf", deep, "200000 200000")
	check("in a leaf", leaf, "-1 100000")
	write(inner, "cgroup.procs", fmt.Sprint(p.Process.Pid))
	write(deep, quotaV1, "-1")
	for _, group := range []string{leaf, deep} {
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	}
	write(other, quotaV1, "50000")
	for _, now := range []struct{ quota, want string }{{"50000", "100000 200000"}, {"150000", "300000 200000"}, {"-1", "-1 200000"}} {
		renew, err := ShareOf(dirs).Withdraw(t.Context())
		if err != nil {
			t.Error(err)
		}
		check("meanwhile", inner, "-1 200000")
		write(dir, quotaV1, now.quota)
		if err := renew(t.Context()); err != nil {
			t.Error(err)
		}
		check("after "+now.quota, inner, now.want)
		check("after "+now.quota, other, "50000 100000")
	}
	write(dir, quotaV1, "100000")
	write(inner, quotaV1, "20000")
	share(p.Process.Pid)
	check("with one of its own", inner, "20000 200000")
}
