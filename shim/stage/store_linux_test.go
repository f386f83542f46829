// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStoresOfProgramsThatAreThere: others get none, and what the caller covers stays.
func TestStoresOfProgramsThatAreThere(t *testing.T) {
	t.Parallel()
	s, k, dir := pretend(t)
	upper := directory(t, dir, "upper")
	programs := host(t, s, dir, "dockerd")
	covered := func(path string) bool { return path == "/var/lib/docker" }
	if got, warnings, err := s.Stores(programs, upper, mapping, covered); len(got)+len(warnings) > 0 || err != nil {
		t.Errorf("%v, %v, %v", got, warnings, err)
	}
	wantLog(t, k)
	if _, _, err := s.Stores(programs, filepath.Join(dir, "absent"), mapping, covered); err == nil || !strings.Contains(err.Error(), "open upper layer") {
		t.Errorf("without an upper layer: %v", err)
	}
}

// TestStoreIsMapped, unless the ids on disk are the container's already.
func TestStoreIsMapped(t *testing.T) {
	t.Parallel()
	for _, moved := range []bool{false, true} {
		s, k, dir := pretend(t)
		directory(t, dir, "upper/var/lib/docker")
		layer, err := os.Open(filepath.Join(dir, "upper"))
		if err != nil {
			t.Fatal(err)
		}
		defer layer.Close()
		s.moved = moved
		got, err := s.store(layer, "/var/lib/docker", mapping)
		if err != nil || got != filepath.Join(dir, "stage/0") || !slices.Contains(k.Mounted(), got) {
			t.Errorf("%q, %v", got, err)
		}
		if k.Has("userns") == moved {
			t.Errorf("moved %v: %q", moved, k.Log())
		}
		if _, err := s.store(layer, "/var/lib/absent", mapping); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("without a directory: %v", err)
		}
		k.Fail = "clone"
		if _, err := s.store(layer, "/var/lib/docker", mapping); !errors.Is(err, unix.EIO) {
			t.Errorf("got %v", err)
		}
	}
}

// TestStoresDirectoryIsMade below what is there, and not through links.
func TestStoresDirectoryIsMade(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := mkdirAll(root, "/var/lib/docker"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir + "/var/lib/docker"); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.Symlink("var", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := mkdirAll(root, "/link/new"); !errors.Is(err, ErrElsewhere) {
		t.Errorf("through a link: %v", err)
	}
	if _, err := os.Stat(dir + "/var/new"); err == nil {
		t.Error("it was made elsewhere")
	}
}
