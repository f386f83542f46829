// SPDX-License-Identifier: Apache-2.0

package arrival

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/shim/stage"
)

// watch watches a rootfs that has the usual directories of programs, and returns the stores
// that are given to it.
func watch(t *testing.T, result error, stores ...string) (rootfs string, given <-chan string) {
	t.Helper()
	rootfs = t.TempDir()
	for _, dir := range []string{"usr/bin", "usr/sbin", "usr/local/bin"} {
		if err := os.MkdirAll(filepath.Join(rootfs, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("usr/bin", rootfs+"/bin"); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 100)
	user := idmap.HostID(os.Geteuid()) //nolint:gosec // ids are not negative
	c := Container{Shelf: stage.Shelf{Rootfs: rootfs, Owner: idmap.Owner{UID: user, GID: user}}, Stores: stores}
	w := start(t.Context(), c, func(store string) error { got <- store; return result })
	w.Ready()
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return rootfs, got
}

func next(t *testing.T, given <-chan string) string {
	t.Helper()
	select {
	case store := <-given:
		return store
	case <-time.After(10 * time.Second):
		t.Fatal("no store")
		return ""
	}
}

// TestArrival: each store is given once, when the first of its programs has its name.
func TestArrival(t *testing.T) {
	t.Parallel()
	rootfs, given := watch(t, nil, "/var/lib/docker", "/var/lib/containers", "/var/lib/kubelet")
	// Not these.
	for _, name := range []string{"bin/docker", "usr/bin/containerd", "dockerd", "usr/sbin/dockerd.dpkg-new"} {
		if err := os.WriteFile(filepath.Join(rootfs, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(rootfs+"/usr/sbin/dockerd.dpkg-new", rootfs+"/usr/sbin/dockerd"); err != nil {
		t.Fatal(err)
	}
	if got := next(t, given); got != "/var/lib/docker" {
		t.Errorf("dockerd: %s", got)
	}
	for _, name := range []string{"bin/podman", "usr/bin/buildah", "usr/local/bin/dockerd"} {
		if err := os.Symlink("elsewhere", filepath.Join(rootfs, name)); err != nil {
			t.Fatal(err)
		}
	}
	if got := next(t, given); got != "/var/lib/containers" {
		t.Errorf("podman: %s", got)
	}
	if err := os.Mkdir(rootfs+"/usr/bin/kubelet", 0o755); err != nil {
		t.Fatal(err)
	}
	if got := next(t, given); got != "/var/lib/kubelet" {
		t.Errorf("kubelet: %s", got)
	}
}

// TestArrivalFails: what cannot be had is not tried again and again.
func TestArrivalFails(t *testing.T) {
	t.Parallel()
	for _, failure := range []error{mount.ErrMounted, stage.ErrElsewhere, errors.New("no")} {
		rootfs, given := watch(t, failure, "/var/lib/docker", "/var/lib/k0s")
		for _, name := range []string{"dockerd", "k0s"} {
			if err := os.WriteFile(rootfs+"/usr/bin/"+name, nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if first, second := next(t, given), next(t, given); first != "/var/lib/docker" || second != "/var/lib/k0s" {
			t.Errorf("%v: %s, %s", failure, first, second)
		}
	}
}

// TestNamesThatTheKernelHasNotKept: then the directories are looked at.
func TestNamesThatTheKernelHasNotKept(t *testing.T) {
	t.Parallel()
	rootfs := t.TempDir()
	w := &Watch{shelf: stage.Shelf{Rootfs: rootfs}}
	if w.arrived("/var/lib/docker", []string{""}) {
		t.Error("nothing is there")
	}
	if err := errors.Join(os.MkdirAll(rootfs+"/usr/bin", 0o755), os.WriteFile(rootfs+"/usr/bin/dockerd", nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	if !w.arrived("/var/lib/docker", []string{"x", ""}) || w.arrived("/var/lib/kubelet", []string{""}) || w.arrived("/var/lib/docker", []string{"x"}) {
		t.Error("dockerd is there")
	}
}

// TestNothingToWatch: a rootfs that is not there is a warning, and Close ends all the same.
func TestNothingToWatch(t *testing.T) {
	t.Parallel()
	w := start(t.Context(), Container{Shelf: stage.Shelf{Rootfs: t.TempDir() + "/absent"}}, nil)
	w.Ready()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}
