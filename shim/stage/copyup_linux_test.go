// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// inMounts runs fn in a mount namespace of its own, which is gone afterwards.
func inMounts(t *testing.T, fn func() error) error {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for mounts")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

// prepare prepares a store in an overlay on dir/lower and dir/upper.
func prepare(t *testing.T, dir, name string, use func(merged string) error) error {
	t.Helper()
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return inMounts(t, func() error {
		merged := filepath.Join(dir, "merged")
		options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
		if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
			return err
		}
		if use != nil {
			if err := use(merged); err != nil {
				return err
			}
		}
		root, err := openRoot(merged)
		if err != nil {
			return err
		}
		defer root.Close()
		layer, err := openRoot(filepath.Join(dir, "upper"))
		if err != nil {
			return err
		}
		defer layer.Close()
		return prepareStore(root, layer, name)
	})
}

// deepen makes directories below each other, deeper than a path can be.
func deepen(t *testing.T, top string, levels int) {
	t.Helper()
	fd, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for i := 0; err == nil && i < levels; i++ {
		var below int
		if err = unix.Mkdirat(fd, "directory", 0o755); err != nil {
			break
		}
		below, err = unix.Openat(fd, "directory", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		err = errors.Join(err, unix.Close(fd))
		fd = below
	}
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(path), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestDeepStoreCostsNothing: the shim opened, and named, every directory that a
// container had made in a store to be, at the container's next start.
func TestDeepStoreCostsNothing(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/lower/var/lib/docker/image/file")
	if err := prepare(t, dir, "/etc", func(merged string) error { return os.WriteFile(merged+"/var/lib/docker/image/file", nil, 0o644) }); err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{dir + "/upper/var/lib/docker/own", dir + "/upper/var/lib/docker/image/own", dir + "/upper/var/lib/containerd"} {
		if err := os.MkdirAll(own, 0o755); err != nil {
			t.Fatal(err)
		}
		deepen(t, own, 400)
	}
	for _, store := range []string{"/var/lib/docker", "/var/lib/containerd"} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := prepare(t, dir, store, nil); err != nil {
			t.Error(err)
		}
		runtime.ReadMemStats(&after)
		if spent := after.TotalAlloc - before.TotalAlloc; spent > 256<<10 {
			t.Errorf("%s took %d bytes of memory", store, spent)
		}
	}
}

// TestStoreHasWhatTheImageHas: a store is complete in the upper layer, and what an
// image makes too large is refused.
func TestStoreHasWhatTheImageHas(t *testing.T) {
	dir := t.TempDir()
	files := []string{"a/b/c/file", "a/file", "file"}
	for _, f := range files {
		write(t, filepath.Join(dir, "lower/var/lib/docker", f))
	}
	if err := os.Symlink("nowhere", dir+"/lower/var/lib/docker/a/link"); err != nil {
		t.Fatal(err)
	}
	if err := prepare(t, dir, "/var/lib/docker", nil); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := filepath.WalkDir(dir+"/upper/var/lib/docker", func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir+"/upper/var/lib/docker", p)
			got = append(got, rel)
		}
		return err
	})
	if want := []string{"a/b/c/file", "a/file", "a/link", "file"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("upper layer has %q, %v; want %q", got, err, want)
	}

	deep := t.TempDir()
	if err := os.MkdirAll(deep+"/lower/var/lib/docker", 0o755); err != nil {
		t.Fatal(err)
	}
	deepen(t, deep+"/lower/var/lib/docker", maxDepth+1)
	if err := prepare(t, deep, "/var/lib/docker", nil); !errors.Is(err, errTooMuch) {
		t.Errorf("too deep: %v", err)
	}
}
