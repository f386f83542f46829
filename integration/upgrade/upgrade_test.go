// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// installed is where containerd finds the shim, of whatever version.
const installed = "/run/upgrade/containerd-shim-isolate-v1"

// install puts a shim in the place of the one before, as packages do.
func install(t *testing.T, program string) {
	t.Helper()
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(installed), 0o755), testprogram.Write(installed+".new", string(text)), os.Rename(installed+".new", installed)); err != nil {
		t.Fatal(err)
	}
}

// start runs a container, with what the shim has to undo: ids, a root file system, a
// volume, a limit and the files of lxcfs.
func start(t *testing.T, m *rig.Machine, id, volume string) *rig.Container {
	t.Helper()
	c := m.Container(id)
	t.Cleanup(func() { c.Remove(t) })
	m.Ctr(t.Context(), "run", "--detach", "--null-io", "--runtime", installed, "--memory-limit", "268435456",
		"--mount", "type=bind,src="+volume+",dst=/volume,options=rbind:ro", m.Image(t, image.Demo), id, "sleep", "infinity").Must(t)
	return c
}

// shimOf finds the process that serves a container.
func shimOf(t *testing.T, id string) int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if strings.HasPrefix(string(line), installed+"\x00") && strings.Contains(string(line), "\x00-id\x00"+id+"\x00") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("container %q has no shim", id)
	return 0
}

// TestContainersLiveOn has containers that one version has started used, stopped and
// cleaned up after when another one is installed.
func TestContainersLiveOn(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	rig.LxcfsFor(t, peer.Lxcfs6, "")
	old := os.Getenv("ISOLATE_OLD")
	if old == "" {
		t.Fatal("ISOLATE_OLD names no program: use make test-upgrade OLD=VERSION")
	}
	built, err := rig.Built(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := rig.MachineFor(t, rig.Config{Containerd: peer.Containerd24, Runc: peer.Runc15})
	volume := t.TempDir()
	for _, test := range []struct {
		name        string
		first, then string
		killed      bool
	}{
		{name: "upgrade", first: old, then: built["containerd-shim-isolate-v1"]},
		{name: "upgrade, shim killed", first: old, then: built["containerd-shim-isolate-v1"], killed: true},
		{name: "back", first: built["containerd-shim-isolate-v1"], then: old},
		{name: "back, shim killed", first: built["containerd-shim-isolate-v1"], then: old, killed: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			install(t, test.first)
			start(t, m, "rehearsal", volume).Remove(t)
			before := rig.MustSnapshot(t)
			c := start(t, m, "c", volume)
			install(t, test.then)
			d := start(t, m, "d", volume)
			ids := map[string]bool{}
			for _, container := range []*rig.Container{c, d} {
				got := strings.Fields(container.Sh(t, "cat /proc/self/uid_map; sed -n 's/MemTotal: *//p' /proc/meminfo; touch /volume/x 2>/dev/null || echo read-only").Must(t))
				if len(got) != 6 || got[0] != "0" || strings.Join(got[2:], " ") != "65536 262144 kB read-only" {
					t.Fatalf("%s prints %q", container.ID, got)
				}
				ids[got[1]] = true
			}
			if len(ids) != 2 {
				t.Error("two containers have the same host ids")
			}
			if got := rig.Exec(t.Context(), built["isolatectl"], "ps").Must(t); strings.Count(got, "running") != 2 {
				t.Errorf("isolatectl ps prints\n%s", got)
			}
			if test.killed {
				if err := unix.Kill(shimOf(t, "c"), unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				rig.Eventually(t, "clean-up", func() bool { _, err := os.Lstat("/run/isolate/default/c"); return errors.Is(err, fs.ErrNotExist) })
			}
			c.Remove(t)
			d.Remove(t)
			rig.MustMatch(t, before)
		})
	}
}
