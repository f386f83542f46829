// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/rig"
)

// restricted are all the flags that a hardened host's mounts have.
const restricted = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// remount changes the flags of a mount until the test ends.
func remount(t *testing.T, dir string, flags, afterwards uintptr) {
	t.Helper()
	change := func(flags uintptr) error { return unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|flags, "") }
	if err := change(flags); err != nil {
		t.Fatalf("remount %q: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := change(afterwards); err != nil {
			t.Errorf("remount %q: %v", dir, err)
		}
	})
}

// mounted mounts a file system that needs no disk, until the test ends.
func mounted(t *testing.T, kind string, flags uintptr, options string) string {
	t.Helper()
	dir, err := os.MkdirTemp(rig.Dir(), "m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("store", dir, kind, flags, options); err != nil {
		t.Fatal(err)
	}
	unmount(t, dir)
	return dir
}

// TestRun has a /run where nothing may be executed, and no device opened: the
// shim's own state and all that it stages is there.
func TestRun(t *testing.T) {
	rig.Require(t, rig.Root)
	remount(t, "/run", restricted, unix.MS_NOSUID|unix.MS_NODEV)
	n := start(t, rig.Config{}, image.Demo)
	n.proves(t)
}

// TestState has containerd's state, where the bundles are, on such a mount.
func TestState(t *testing.T) {
	rig.Require(t, rig.Root)
	n := start(t, rig.Config{State: filepath.Join(mounted(t, "tmpfs", restricted, "mode=755"), "state")}, image.Demo)
	n.proves(t)
}

// TestPrivateMounts has a host whose mounts do not propagate, as without systemd.
func TestPrivateMounts(t *testing.T) {
	rig.Require(t, rig.Root)
	propagation(t, unix.MS_PRIVATE)
	n := start(t, rig.Config{}, image.Demo)
	n.proves(t)
}

// TestMountNamespace has a containerd with a mount namespace of its own, as the
// service manager makes for PrivateTmp= and its like.
func TestMountNamespace(t *testing.T) {
	rig.Require(t, rig.Root)
	n := start(t, rig.Config{Wrap: []string{"unshare", "--mount", "--propagation", "slave"}}, image.Demo)
	n.proves(t)
}

// propagation changes that of all mounts until the test ends.
func propagation(t *testing.T, kind uintptr) {
	t.Helper()
	change := func(kind uintptr) error { return unix.Mount("", "/", "", unix.MS_REC|kind, "") }
	if err := change(kind); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := change(unix.MS_SHARED); err != nil {
			t.Error(err)
		}
	})
}

// TestReadOnlyEtc has an /etc that nobody can write to.
func TestReadOnlyEtc(t *testing.T) {
	rig.Require(t, rig.Root)
	n := start(t, rig.Config{}, image.Demo)
	remount(t, "/etc", unix.MS_RDONLY, 0)
	n.proves(t)
}
