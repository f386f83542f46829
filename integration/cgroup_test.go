// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
)

// hierarchies are the directories of a group on this host.
func hierarchies(t *testing.T, group string) []string {
	t.Helper()
	dirs, err := cgroupfs.Dirs(group)
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// noGroups proves that a container leaves no group.
func noGroups(t *testing.T, group string) {
	t.Helper()
	rig.Eventually(t, "the groups to go", func() bool { return !exists(hierarchies(t, group)) })
}

// exists tells whether one of the directories does.
func exists(dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { _, err := os.Stat(dir); return err == nil })
}

// TestFrozenContainerEnds kills containers whose first process is held by a freezer:
// its own, in a group that it has made, or the host's.
func TestFrozenContainerEnds(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime, oneRange)
			const freeze = "cd /sys/fs/cgroup; [ ! -d freezer ] || cd freezer; mkdir j; echo $$ > j/cgroup.procs; " +
				"if [ -e j/cgroup.freeze ]; then echo 1 > j/cgroup.freeze; else echo FROZEN > j/freezer.state; fi; sleep 1000"
			kill := func(id string) { m.Ctr(t.Context(), "tasks", "kill", "--signal", "SIGKILL", id).Must(t) }
			for name, ends := range map[string]func(id string){
				"kill":             kill,
				"kill all":         func(id string) { m.Ctr(t.Context(), "tasks", "kill", "--all", "--signal", "SIGKILL", id).Must(t) },
				"remove":           func(id string) { m.Ctr(t.Context(), "tasks", "rm", "--force", id) },
				"kill of the shim": func(id string) { killShim(t, id) },
			} {
				t.Run(name, func(t *testing.T) {
					id := "frozen"
					m.start(t, id, nil, "sh", "-c", freeze)
					pid := m.pid(t, id)
					rig.Eventually(t, "the container to be frozen", func() bool {
						for _, dir := range hierarchies(t, "/default/"+id+"/j") {
							if strings.TrimSpace(text(dir+"/freezer.state")) == "FROZEN" || strings.Contains(text(dir+"/cgroup.events"), "frozen 1") {
								return true
							}
						}
						return false
					})
					ends(id)
					rig.Eventually(t, "the first process to end", func() bool { return text("/proc/"+pid+"/cmdline") == "" })
					m.Container(id).Remove(t)
					noGroups(t, "/default/"+id)
				})
			}
			t.Run("paused", func(t *testing.T) {
				m.start(t, "paused", nil, "sleep", "1000")
				m.Ctr(t.Context(), "tasks", "pause", "paused").Must(t)
				kill("paused")
				m.Container("paused").Remove(t)
				noGroups(t, "/default/paused")
			})
			m.run(t, nil, "true").Must(t) // with the only range
		})
	}
}

// nest is a perl program that makes groups in each other to more than PATH_MAX, and
// then the group made.
const nest = `my $d = "/sys/fs/cgroup"; $d .= "/pids" if -d "$d/pids"; chdir $d or die;
for (1..40) { my $n = "d" x 200; mkdir $n or die "mkdir: $!"; chdir $n or die "chdir: $!"; }
mkdir "$d/made" or die "mkdir: $!";`

// TestDeepGroupsAreRemoved ends containers that have made groups whose paths are longer
// than PATH_MAX.
func TestDeepGroupsAreRemoved(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime, oneRange)
			m.run(t, nil, "perl", "-e", nest).Must(t)
			noGroups(t, "/default/a")
			for name, ends := range map[string]func(){
				"remove":           func() {},
				"kill of the shim": func() { killShim(t, "a") },
			} {
				t.Run(name, func(t *testing.T) {
					m.start(t, "a", nil, "perl", "-e", nest+"sleep 1000")
					rig.Eventually(t, "the groups", func() bool { return exists(hierarchies(t, "/default/a/made")) })
					ends()
					rig.Eventually(t, "the container to be removed", func() bool {
						m.Ctr(t.Context(), "tasks", "rm", "--force", "a")
						return !strings.Contains(m.Ctr(t.Context(), "tasks", "ls").Must(t), "a ")
					})
					m.Container("a").Remove(t)
					noGroups(t, "/default/a")
				})
			}
			m.run(t, nil, "true").Must(t) // with the same id, and the only range
		})
	}
}

// TestCgroupsOfOthers names groups for containers that others use. They are refused, and
// nothing is removed.
func TestCgroupsOfOthers(t *testing.T) {
	rig.Require(t, rig.Root)
	m := demoMachine(t, ociRuntimes[0])
	mkdir := func(groups ...string) (dirs []string) {
		for _, group := range groups {
			for _, dir := range hierarchies(t, group) {
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
						t.Error(err)
					}
				})
				dirs = append(dirs, dir)
			}
		}
		return dirs
	}
	stay := mkdir("/others", "/others/empty")
	for _, runtime := range ociRuntimes {
		configure(t, runtime)
		for path, reason := range map[string]string{
			"/": "leads to groups of others", "/others/empty/../..": "leads to groups of others", "../others": "leads to groups of others",
			"-.slice::../others": "leads to groups of others",
			"/others":            "has groups of others below it",
		} {
			r := m.run(t, []string{"--cgroup", path}, "true")
			if r.Code == 0 || !strings.Contains(r.Stderr, reason) {
				t.Errorf("%s: cgroup %q: exit status %d, %s", runtime, path, r.Code, r.Stderr)
			}
		}
		for _, dir := range stay {
			if !exists([]string{dir}) {
				t.Fatalf("%s: %s was removed", runtime, dir)
			}
		}
		// One in use.
		m.start(t, "first", nil, "sleep", "1000")
		r := m.run(t, []string{"--cgroup", "/default/first"}, "true")
		if r.Code == 0 || !strings.Contains(r.Stderr, "exists and has processes") {
			t.Errorf("%s: group of a container: exit status %d, %s", runtime, r.Code, r.Stderr)
		}
		if state := m.state(t, "first"); state != "RUNNING" {
			t.Errorf("%s: the container in it is %s", runtime, state)
		}
		m.Container("first").Remove(t)
		// An empty one may have been made for the container.
		dirs := mkdir("/premade")
		m.run(t, []string{"--cgroup", "/premade"}, "true").Must(t)
		for _, dir := range dirs { // runtimes remove it
			if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		}
	}
}

// TestPlainDirectoryBesideHierarchies: what is in /sys/fs/cgroup need not be a
// hierarchy.
func TestPlainDirectoryBesideHierarchies(t *testing.T) {
	rig.Require(t, rig.Root, rig.CgroupV1)
	const leftover = cgroupfs.Mountpoint + "/leftover"
	if err := os.MkdirAll(leftover+"/default/a", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(leftover+"/default/a/cgroup.procs", []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(leftover); err != nil {
			t.Error(err)
		}
	})
	for _, runtime := range ociRuntimes {
		m := demoMachine(t, runtime, oneRange)
		for range 2 { // with the only range
			m.run(t, nil, "true").Must(t)
		}
		if said := m.warnings(t); len(said) != 0 {
			t.Errorf("%s: %q", runtime, said)
		}
	}
}

// TestMemoryLimitBoundsGroups: on cgroup v1 nothing else does. The kernel charges what a
// group costs to the container (since Linux 5.19), 13 kB on x86-64 with two processors.
func TestMemoryLimitBoundsGroups(t *testing.T) {
	rig.Require(t, rig.Root, rig.CgroupV1)
	m := demoMachine(t, ociRuntimes[0])
	// It ends where a group is refused, or is killed for want of memory.
	const script = `chdir "/sys/fs/cgroup/memory" or die; for (1..10000) { mkdir "g$_" or last }`
	m.start(t, "a", []string{"--memory-limit", fmt.Sprint(16 << 20)}, "perl", "-e", script)
	rig.Eventually(t, "an end of the groups", func() bool { return m.state(t, "a") == "STOPPED" })
	made := 0
	for _, dir := range hierarchies(t, "/default/a") {
		groups, err := filepath.Glob(dir + "/g*")
		if err != nil {
			t.Fatal(err)
		}
		made = max(made, len(groups))
	}
	if made < 100 || made > 4000 {
		t.Errorf("made %d groups with 16 MiB", made)
	}
	m.Container("a").Remove(t)
	noGroups(t, "/default/a")
}
