// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// full lets file systems run full at each point, with more room each time, until a
// container runs and can write. Whatever it is that finds no room, nothing may be
// left of it.
func full(t *testing.T, h host, limit func(t *testing.T, free int)) {
	t.Helper()
	before := rig.MustSnapshot(t)
	const most = 60
	refusals := 0
	for free := range most {
		limit(t, free)
		r := h.run(t, "a", nil, "sh", "-c", "echo text > /file && cat /file")
		limit(t, -1)
		if r.Code == 0 && r.Stdout == "text\n" {
			break
		}
		t.Logf("with %d free: %s%s", free, r.Stdout, strings.TrimSpace(r.Stderr))
		// A runtime whose log is on the full disk cannot say why it failed.
		said := strings.Contains(strings.ToLower(r.Stderr), "no space left on device") || strings.Contains(r.Stderr, "runc did not terminate successfully")
		if !said || free == most-1 {
			t.Errorf("with %d free: %+v", free, r)
		}
		refusals++
		h.Ctr(t.Context(), "tasks", "rm", "--force", "a")
		h.Ctr(t.Context(), "containers", "rm", "a")
		h.Ctr(t.Context(), "snapshots", "rm", "a")
		if strings.Contains(r.Stderr, "shim-binary-path") || strings.Contains(r.Stderr, "bootstrap.json") {
			dropAbandoned(t, before)
		}
		rig.MustMatch(t, before)
		if t.Failed() {
			t.FailNow()
		}
	}
	if refusals == 0 {
		t.Error("the file system was never full")
	}
	h.run(t, "next", nil, "true").Must(t)
	rig.MustMatch(t, before)
}

// dropAbandoned ends a shim that containerd has started and then forgotten,
// because it could not write down where it is. It neither stops such a shim nor
// calls delete, whichever shim it is.
func dropAbandoned(t testing.TB, before rig.Leftovers) {
	t.Helper()
	if pid := shimOf(t, "a"); pid != 0 {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	files, err := filepath.Glob("/run/containerd/s/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if before.Files[file] > 0 {
			continue
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
}

// limitTmpfs leaves a tmpfs some free pages, or inodes, or any number.
func limitTmpfs(t *testing.T, dir, what string, free int) {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	used, plenty := s.Blocks-s.Bfree, 1<<20
	if what == "nr_inodes" {
		used = s.Files - s.Ffree
	}
	size := max(int(used)+free, 1) // 0 means no limit
	if free < 0 {
		size = plenty
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("%s=%d", what, size)); err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk lets each of the file systems on which a container has files run
// full at each point.
func TestFullDisk(t *testing.T) {
	rig.Require(t, rig.Root)
	rig.Configure(t, oneRange)
	h := hostOf(t, peer.Containerd24)
	tmpfs := func(t *testing.T, dir string) {
		if err := unix.Mount("small", dir, "tmpfs", 0, "mode=0711"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("run, blocks", func(t *testing.T) {
		full(t, h, func(t *testing.T, free int) { limitTmpfs(t, "/run", "nr_blocks", free) })
	})
	t.Run("run, inodes", func(t *testing.T) {
		full(t, h, func(t *testing.T, free int) { limitTmpfs(t, "/run", "nr_inodes", free) })
	})
	t.Run("bundles, blocks", func(t *testing.T) {
		dir := filepath.Join(h.State, "io.containerd.runtime.v2.task")
		tmpfs(t, dir)
		h.run(t, "a", nil, "true").Must(t) // makes the namespace's directory
		full(t, h, func(t *testing.T, free int) { limitTmpfs(t, dir, "nr_blocks", free) })
	})
	t.Run("bundles, inodes", func(t *testing.T) {
		dir := filepath.Join(h.State, "io.containerd.runtime.v2.task")
		tmpfs(t, dir)
		h.run(t, "a", nil, "true").Must(t)
		full(t, h, func(t *testing.T, free int) { limitTmpfs(t, dir, "nr_inodes", free) })
	})
	t.Run("snapshots, inodes", func(t *testing.T) {
		// A fresh containerd, whose snapshots are all on the small file system.
		small := host{Machine: rig.MachineFor(t, rig.Config{})}
		dir := filepath.Join(small.Root, "io.containerd.snapshotter.v1.overlayfs/snapshots")
		tmpfs(t, dir)
		small.ref = small.Image(t, image.Demo)
		small.run(t, "a", nil, "true").Must(t)
		full(t, small, func(t *testing.T, free int) { limitTmpfs(t, dir, "nr_inodes", free) })
	})
}
