// SPDX-License-Identifier: Apache-2.0

package openat

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// tree is a root with a link to a file by way of "..", beside a secret.
func tree(t *testing.T) *os.File {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"root/lib", "root/sbin"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"root/lib/init", "secret"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"root/sbin/init": "../lib/init", "root/out": "../secret", "root/self": "/proc/self/exe"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(filepath.Join(dir, "root"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestOpen(t *testing.T) {
	t.Parallel()
	root := tree(t)
	if f, err := Open(root, "lib", unix.O_PATH|unix.O_DIRECTORY, Beneath); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
	for _, c := range []struct {
		path    string
		resolve uint64
		want    error
	}{
		{"sbin/init", Beneath, nil},
		{"sbin", Beneath | SameMount, nil},
		{"sbin/init", InRoot, nil},
		{"/sbin/init", InRoot, nil},
		{"sbin/init", Beneath | NoLinks, unix.ELOOP},
		{"out", Beneath, unix.EXDEV},
		{"out", InRoot, unix.ENOENT},
		{"../secret", Beneath, unix.EXDEV},
		{"nothing", Beneath, unix.ENOENT},
	} {
		f, err := Open(root, c.path, unix.O_RDONLY, c.resolve)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.path, err, c.want)
		}
		if err == nil {
			f.Close()
		}
	}
}

// A rename anywhere on the machine makes the kernel answer EAGAIN to "..".
func TestOpenWhileFilesAreRenamed(t *testing.T) {
	t.Parallel()
	root, dir := tree(t), t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := os.WriteFile(a, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			if os.Rename(a, b) != nil || os.Rename(b, a) != nil {
				return
			}
		}
	}()
	for range 2000 {
		f, err := Open(root, "sbin/init", unix.O_RDONLY, InRoot)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	stop.Store(true)
	<-done
}
