// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestVolumeOfHostTrees proves that a container gets what monitoring agents ask
// for, also while another one runs, whose rootfs is mapped already: all mounts of
// the host, with one warning for those that take no mapping.
func TestVolumeOfHostTrees(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.MappedTmpfs)
			m := demoMachine(t, runtime)
			m.start(t, "other", nil, "sleep", "1000")
			tree := shortDir(t)
			for _, dir := range []string{"closed/plain", "closed/tmpfs"} {
				if err := os.MkdirAll(tree+"/"+dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Mount("source", tree+"/closed/plain", "ramfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(tree+"/closed/plain", 0); err != nil {
					t.Error(err)
				}
			})
			mountTmpfs(t, tree+"/closed/tmpfs", 0)
			// Nobody but this id may enter, and it is in no container.
			if err := os.Chown(tree+"/closed", 100000, 100000); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(tree+"/closed", 0o700); err != nil {
				t.Fatal(err)
			}
			options := slices.Concat(volume("/", "/host", "rbind:ro:rslave"), volume(tree, "/tree", "rbind:rw"))
			got := m.run(t, options, "sh", "-c", "test -d /host/etc && stat -c %u:%g /host/usr; grep -c ' /tree' /proc/self/mountinfo").Must(t)
			if got != "0:0\n3" {
				t.Errorf("container printed %q", got)
			}
			warnings := m.warnings(t)
			for _, destination := range []string{"volume /host:", "volume /tree:"} {
				if n := len(slices.DeleteFunc(slices.Clone(warnings), func(w string) bool { return !strings.Contains(w, destination) })); n != 1 {
					t.Errorf("%d warnings about %s: %q", n, destination, warnings)
				}
			}
			configure(t, runtime, "[volumes]\nrequire_idmap = true")
			if r := m.run(t, volume(tree, "/tree", "rbind:rw"), "true"); r.Code == 0 || !strings.Contains(r.Stderr, "volumes.require_idmap is set") {
				t.Errorf("with require_idmap: status %d, stderr %q", r.Code, r.Stderr)
			}
		})
	}
}

// TestVolumeOfHungServer proves that a volume whose server hangs is refused in
// bounded time, by name, and that nothing stays once the server is gone.
func TestVolumeOfHungServer(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	m := demoMachine(t, peer.Runc15)
	fuse := rig.LxcfsFor(t, peer.Lxcfs5, "/run/fuse-source")
	t.Cleanup(func() { os.Remove(fuse.Dir) })
	configure(t, peer.Runc15, "[lxcfs]\nmode = \"off\"")
	m.run(t, nil, "true").Must(t)
	before := rig.MustSnapshot(t)
	if err := fuse.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{fuse.Dir, fuse.Dir + "/proc/meminfo"} {
		began := time.Now()
		r := m.run(t, volume(source, "/hung", "rbind:ro"), "true")
		for _, part := range []string{"volume /hung", source, "fuse.lxcfs", "did not answer for 20s"} {
			if r.Code == 0 || !strings.Contains(r.Stderr, part) {
				t.Errorf("%s: status %d, stderr %q, want %q in it", source, r.Code, r.Stderr, part)
			}
		}
		if took := time.Since(began); took > 40*time.Second {
			t.Errorf("%s: took %v", source, took)
		}
	}
	// Nor does a client that goes before.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	m.Ctr(ctx, slices.Concat([]string{"run", "--null-io", "--runtime", shimName}, volume(fuse.Dir, "/hung", "rbind:ro"), []string{m.reference, "a", "true"})...)
	m.Container("a").Remove(t)
	// containerd gives up what the client has left in the background.
	rig.Eventually(t, "the id to be free", func() bool {
		_, err := os.Stat(m.State + "/io.containerd.runtime.v2.task/default/a")
		return errors.Is(err, fs.ErrNotExist)
	})
	if err := fuse.Cont(); err != nil {
		t.Fatal(err)
	}
	m.run(t, volume(fuse.Dir+"/proc", "/fuse", "rbind:ro"), "cat", "/fuse/uptime").Must(t)
	rig.MustMatch(t, before)
}
