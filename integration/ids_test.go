// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestRangeOfALivingThread: a container is over for containerd, its shim and its
// cgroups, and its first thread as well; another one waits for a file system and
// cannot be killed. The next container does not get its ids.
func TestRangeOfALivingThread(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	m := demoMachine(t, peer.Runc15)
	rig.Configure(t, oneRange)
	volume := mountSilent(t)
	config := m.bundle(t, tinyRootfs(t, 0), func(s *specs.Spec) {
		s.Linux.CgroupsPath = ""
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: volume.dir, Options: []string{"rbind"}})
		s.Process.Args = []string{"/inside", "hang", "/data/file"}
	})
	t.Cleanup(func() { m.Container("a").Remove(t) })
	m.Ctr(t.Context(), "containers", "create", "--runtime", shimName, "--config", config, "a").Must(t)
	m.Ctr(t.Context(), "tasks", "start", "--detach", "--null-io", "a").Must(t)
	<-volume.asked
	h := host{Machine: m.Machine, ref: m.reference}
	init := h.init(t, "a")
	if err := unix.Kill(init, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killShim(t, "a")
	rig.Eventually(t, "end of the first thread", func() bool {
		return strings.Contains(text(fmt.Sprintf("/proc/%d/stat", init)), ") Z ")
	})
	if threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", init)); err != nil || len(threads) < 2 {
		t.Fatalf("the other thread has ended: %v, %v", threads, err)
	}
	got := h.run(t, "b", nil, "cat", "/proc/self/uid_map")
	if err := fmt.Sprint(got.Err()); got.Err() == nil || !strings.Contains(err, "no free range") || !strings.Contains(err, fmt.Sprintf("process %d ", init)) {
		t.Errorf("next container: %q, %v", got.Stdout, got.Err())
	}
	volume.abort()
	rig.Eventually(t, "range of the ended thread", func() bool { return h.run(t, "b", nil, "true").Err() == nil })
}

// TestRangeOfAKilledShim: a later container has the name, and so the cgroups, of one whose
// shim was killed. The ids of the earlier one stayed reserved while the later one ran.
func TestRangeOfAKilledShim(t *testing.T) {
	rig.Require(t, rig.Root)
	h := hostOf(t, peer.Containerd24)
	rig.Configure(t, oneRange)
	adopted := []string{"--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536", "--remap-labels"}
	for _, flags := range [][]string{nil, adopted} {
		h.start(t, "a", flags...)
		killShim(t, "a")
		h.Container("a").Remove(t)
		rig.Eventually(t, "end of delete", func() bool { _, err := os.Lstat("/run/isolate/default/a"); return err != nil })
		h.start(t, "a", "--uidmap", "0:300000:65536", "--gidmap", "0:300000:65536", "--remap-labels")
		h.run(t, "b", flags, "true").Must(t)
		h.Container("a").Remove(t)
	}
}

// TestLostPool: somebody removes the files of the pool while a container runs. The
// next one does not get its ids.
func TestLostPool(t *testing.T) {
	rig.Require(t, rig.Root)
	h := hostOf(t, peer.Containerd24)
	rig.Configure(t, oneRange)
	h.start(t, "a")
	if err := os.RemoveAll("/run/isolate/.ids"); err != nil {
		t.Fatal(err)
	}
	got := h.run(t, "b", nil, "cat", "/proc/self/uid_map")
	if err := fmt.Sprint(got.Err()); got.Err() == nil || !strings.Contains(err, "no free range") || !strings.Contains(err, `("sleep") has ids of it`) {
		t.Errorf("next container: %q, %v", got.Stdout, got.Err())
	}
	h.Container("a").Remove(t)
	h.run(t, "b", nil, "true").Must(t)
}

// TestAdoptedIDsAreExclusive: a client that maps ids itself gets none that another
// container has, be it by another mapping or from the pool.
func TestAdoptedIDsAreExclusive(t *testing.T) {
	rig.Require(t, rig.Root)
	h := hostOf(t, peer.Containerd24)
	mapped := func(first string) []string {
		ids := "0:" + first + ":65536"
		return []string{"--uidmap", ids, "--gidmap", ids, "--remap-labels"}
	}
	refused := func(first, want string) {
		t.Helper()
		if err := h.run(t, "b", mapped(first), "true").Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ids from %s on: %v, want %q", first, err, want)
		}
	}
	h.start(t, "a", mapped("100000")...)
	refused("100000", `host ids 100000-165535 of its mapping are those of container "a" in namespace "default"`)
	refused("165535", `those of container "a"`)
	h.run(t, "b", mapped("165536"), "true").Must(t)
	h.start(t, "own")
	pooled := strings.Fields(h.Container("own").Exec(t, nil, "cat", "/proc/self/uid_map").Must(t))[1]
	refused(pooled, `those of container "own"`)

	rig.Configure(t, "ids.adopt = \"shared\"\n")
	h.run(t, "b", mapped("100000"), "true").Must(t)
	refused(pooled, `those of container "own"`)
	h.Container("own").Remove(t)
	h.run(t, "b", mapped(pooled), "true").Must(t)

	rig.Configure(t, "")
	killShim(t, "a")
	rig.Eventually(t, "ids of the killed one", func() bool { return h.run(t, "b", mapped("100000"), "true").Err() == nil })
	h.Container("a").Remove(t)
}
