// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// disk makes a file system in a file and mounts it, until the test ends.
func disk(t *testing.T, options string, mkfs ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp(rig.Dir(), "d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	file, mounted := filepath.Join(dir, "image"), filepath.Join(dir, "m")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 2<<30); err != nil { // sparse
		t.Fatal(err)
	}
	if err := os.Mkdir(mounted, 0o755); err != nil {
		t.Fatal(err)
	}
	rig.Exec(t.Context(), append(mkfs, file)...).Must(t)
	// The loop device goes with the last mount, also if the rig is killed.
	rig.Exec(t.Context(), "mount", "-o", strings.Trim("loop,"+options, ","), file, mounted).Must(t)
	unmount(t, mounted)
	return mounted
}

// unmount unmounts at the end of the test.
func unmount(t *testing.T, dir string) {
	t.Helper()
	t.Cleanup(func() {
		if err := rig.Exec(context.WithoutCancel(t.Context()), "umount", dir).Err(); err != nil {
			t.Error(err)
		}
	})
}

// tool is one of the programs that make file systems.
func tool(t *testing.T, name string) string {
	t.Helper()
	p, err := peer.Get(t.Context(), peer.Filesystems)
	if err != nil {
		t.Fatal(err)
	}
	return p.Program(name)
}

// TestStore has containerd's root on each kind of file system.
func TestStore(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T) string
	}{
		{"ext4", func(t *testing.T) string { return disk(t, "", "mkfs.ext4", "-q") }},
		{"ext4 with nosuid, nodev and noexec", func(t *testing.T) string { return disk(t, "nosuid,nodev,noexec", "mkfs.ext4", "-q") }},
		{"ext4 with small inodes", func(t *testing.T) string { return disk(t, "", "mkfs.ext4", "-q", "-I", "128") }},
		{"xfs", func(t *testing.T) string { return disk(t, "", tool(t, "mkfs.xfs"), "-q") }},
		{"btrfs", func(t *testing.T) string { return disk(t, "", tool(t, "mkfs.btrfs"), "-q") }},
		{"tmpfs", func(t *testing.T) string { return mounted(t, "tmpfs", 0, "mode=755") }},
		{"a link", func(t *testing.T) string {
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(t.TempDir(), link); err != nil {
				t.Fatal(err)
			}
			return link
		}},
		{"a path with a blank", func(t *testing.T) string {
			dir := filepath.Join(t.TempDir(), "with a blank")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			return dir
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			rig.Require(t, rig.Root)
			dir := c.make(t)
			n := start(t, rig.Config{Root: filepath.Join(dir, "containerd")}, image.Demo)
			n.proves(t)
		})
	}
}

// TestSnapshotter has other snapshotters than overlayfs.
func TestSnapshotter(t *testing.T) {
	t.Run("btrfs", func(t *testing.T) {
		rig.Require(t, rig.Root)
		dir := disk(t, "", tool(t, "mkfs.btrfs"), "-q")
		// The newer ones have this snapshotter only if they are built with C.
		n := start(t, rig.Config{Containerd: peer.Containerd17, Root: filepath.Join(dir, "containerd"), Snapshotter: "btrfs"}, image.Demo)
		n.proves(t)
	})
	t.Run("erofs", func(t *testing.T) {
		rig.Require(t, rig.Root)
		mkfs := tool(t, "mkfs.erofs")
		n := start(t, rig.Config{
			Snapshotter: "erofs", Programs: map[string]string{"mkfs.erofs": mkfs},
			TOML: "[plugins.'io.containerd.service.v1.diff-service']\ndefault = ['erofs', 'walking']\n",
		}, image.Demo)
		n.proves(t)
	})
}

// TestStoreThatCannotBeMapped has containerd's root, with the one snapshotter that
// needs nothing of a file system, on file systems that take no id mapping.
func TestStoreThatCannotBeMapped(t *testing.T) {
	for _, c := range []struct {
		kind string
		make func(t *testing.T) string
	}{
		{"ramfs", func(t *testing.T) string { return mounted(t, "ramfs", 0, "") }},
		{"overlay", func(t *testing.T) string {
			dir := t.TempDir()
			for _, name := range []string{"lower", "upper", "work"} {
				if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			return mounted(t, "overlay", 0, "lowerdir="+dir+"/lower,upperdir="+dir+"/upper,workdir="+dir+"/work")
		}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			rig.Require(t, rig.Root)
			dir := c.make(t)
			n := start(t, rig.Config{Root: filepath.Join(dir, "containerd"), Snapshotter: "native"}, image.Inner)
			n.refuses(t, dir, c.kind+" cannot be id-mapped", "root directory on a file system that can be idmapped")
		})
	}
}
