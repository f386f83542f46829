// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
)

func TestKeeps(t *testing.T) {
	t.Parallel()
	for program, want := range map[string][]string{
		"dockerd": {"/var/lib/docker"}, "podman": {"/var/lib/containers"}, "docker": nil, "": nil,
	} {
		var got []string
		for _, path := range StorePaths() {
			if Keeps(program, path) {
				got = append(got, path)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q keeps something in %q, want %q", program, got, want)
		}
	}
}

// TestShelf makes a store on what is an overlay without lower layers, for this matter.
func TestShelf(t *testing.T) {
	t.Parallel()
	_, k, dir := pretend(t)
	rootfs := directory(t, dir, "rootfs")
	user := idmap.HostID(os.Geteuid()) //nolint:gosec // ids are not negative
	s := Shelf{Kernel: k, Rootfs: rootfs, Upper: rootfs, Owner: idmap.Owner{UID: user, GID: user}}
	if has, err := s.Has("/var/lib/docker"); has || err != nil {
		t.Errorf("no program: %v, %v", has, err)
	}
	directory(t, rootfs, "usr/local/bin")
	if err := errors.Join(os.WriteFile(rootfs+"/usr/local/bin/dockerd", nil, 0o755), os.Symlink("usr/local/bin", rootfs+"/bin"), os.WriteFile(rootfs+"/sbin", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if has, err := s.Has("/var/lib/docker"); !has || err != nil {
		t.Errorf("dockerd is there: %v, %v", has, err)
	}
	if has, err := s.Has("/var/lib/kubelet"); has || err != nil {
		t.Errorf("kubelet is not there: %v, %v", has, err)
	}
	err := s.WithProgramDirs(func(paths []string) error {
		for _, path := range paths {
			if _, err := os.Stat(path + "/dockerd"); err != nil {
				t.Error(err)
			}
		}
		if len(paths) != 2 { // one of them through a link
			t.Errorf("directories of programs: %q", paths)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if m, err := s.Make("/var/lib/docker", nil); err != nil {
		t.Error(err)
	} else if err := m.Close(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(rootfs + "/var/lib/docker"); err != nil || info.Mode().Perm() != 0o711 || !k.Has("clone") {
		t.Errorf("%v, %v, %q", info, err, k.Log())
	}
	// What the container has alone needs nothing but a clone; with what the image has it
	// would be more.
	directory(t, rootfs, "srv/own")
	if m, err := s.Clone("/srv/own", nil); err != nil {
		t.Error(err)
	} else if err := m.Close(); err != nil {
		t.Error(err)
	}
	for _, attr := range originAttrs {
		if err := unix.Setxattr(rootfs+"/srv", attr, nil, 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"/srv", "/absent"} {
		if _, err := s.Clone(dir, nil); !errors.Is(err, ErrMerged) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if err := os.Symlink("docker", rootfs+"/var/lib/containers"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Make("/var/lib/containers", nil); !errors.Is(err, ErrElsewhere) {
		t.Errorf("the store is a link: %v", err)
	}
	for _, s := range []Shelf{{Kernel: k, Rootfs: filepath.Join(dir, "absent"), Upper: rootfs}, {Kernel: k, Rootfs: rootfs, Upper: filepath.Join(dir, "absent")}} {
		if _, err := s.Make("/var/lib/docker", nil); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: %v", s, err)
		}
	}
}
