// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
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
			mountOn(t, tree+"/closed/plain", "ramfs", 0)
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

// TestVolumeOfManyMounts proves that a container gets a tree of mounts as it is, with
// those of a server that hangs, with covered ones and stacked ones.
func TestVolumeOfManyMounts(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE, rig.MappedTmpfs)
			m := demoMachine(t, runtime)
			tree := shortDir(t)
			fuse := manyMounts(t, tree)
			mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(tree))
			if err != nil {
				t.Fatal(err)
			}
			if err := fuse.Stop(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := fuse.Cont(); err != nil {
					t.Error(err)
				}
			})
			const script = "grep -c ' /tree' /proc/self/mountinfo; cd /tree && stat -c %u many/299 stacked covered hidden over plain"
			got := m.run(t, volume(tree, "/tree", "rbind:rw:rslave"), "sh", "-c", script).Must(t)
			// The volume itself counts too. A ramfs takes no mapping.
			if want := fmt.Sprintf("%d\n1000\n1001\n1002\n1003\n1004\n65534", len(mounts)+1); got != want {
				t.Errorf("container printed %q, want %q", got, want)
			}
			if w := m.warnings(t); len(w) != 1 || !strings.Contains(w[0], "volume /tree:") {
				t.Errorf("warnings are %q, want one about the volume", w)
			}
		})
	}
}

// manyMounts mounts all sorts of things below a directory, and the file system of a
// server, which it returns. What is not covered belongs to ids from 1000 on.
func manyMounts(t *testing.T, tree string) *rig.Lxcfs {
	t.Helper()
	mount := func(fsType string, paths ...string) {
		for _, path := range paths {
			if err := os.MkdirAll(tree+"/"+path, 0o755); err != nil {
				t.Fatal(err)
			}
			mountOn(t, tree+"/"+path, fsType, 0)
		}
	}
	for i := range 300 {
		mount("tmpfs", fmt.Sprintf("many/%d", i))
	}
	mount("tmpfs", "stacked")
	mount("ramfs", "stacked")
	mount("tmpfs", "stacked", "covered")
	mount("ramfs", "covered/inner")
	mount("tmpfs", "covered", "hidden/inner", "hidden") // one on its mount point, one on a directory above
	mount("ramfs", "plain")
	fuse := rig.LxcfsFor(t, peer.Lxcfs5, tree+"/hung")
	if err := os.Mkdir(tree+"/over", 0o755); err != nil {
		t.Fatal(err)
	}
	bind(t, fuse.Dir, tree+"/over")
	mount("tmpfs", "over")
	for i, path := range []string{"many/299", "stacked", "covered", "hidden", "over", "plain"} {
		if err := os.Chown(tree+"/"+path, 1000+i, 1000+i); err != nil {
			t.Fatal(err)
		}
	}
	return fuse
}

// bind bind mounts a directory for one test, privately: what is mounted on it is not
// mounted on the source as well.
func bind(t *testing.T, source, target string) {
	t.Helper()
	if err := errors.Join(unix.Mount(source, target, "", unix.MS_BIND, ""), unix.Mount("", target, "", unix.MS_PRIVATE, "")); err != nil {
		t.Fatalf("bind %q to %q: %v", source, target, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, 0); err != nil {
			t.Errorf("unmount %q: %v", target, err)
		}
	})
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
	// A directory above it is no matter by itself, but here mounts have to be looked up
	// with the server: the tree does not take a mapping as a whole.
	above := shortDir(t)
	if err := os.Mkdir(above+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	bind(t, fuse.Dir, above+"/sub")
	mountTmpfs(t, above+"/sub/proc", 0)
	before := rig.MustSnapshot(t)
	if err := fuse.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ source, says string }{
		{fuse.Dir, "did not answer for 20s"},
		{fuse.Dir + "/proc/meminfo", "did not answer for 20s"},
		// The last: the kernel has forgotten by then what it knew of the directory.
		{above, `mounts in fuse.lxcfs at "` + above + `/sub" are looked up there`},
	} {
		began := time.Now()
		r := m.run(t, volume(test.source, "/hung", "rbind:ro"), "true")
		for _, part := range []string{"volume /hung", test.source, "fuse.lxcfs", test.says} {
			if r.Code == 0 || !strings.Contains(r.Stderr, part) {
				t.Errorf("%s: status %d, stderr %q, want %q in it", test.source, r.Code, r.Stderr, part)
			}
		}
		if took := time.Since(began); took > 40*time.Second {
			t.Errorf("%s: took %v", test.source, took)
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
