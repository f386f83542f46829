// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/spec"
)

// TestDevices makes nodes with the container's owners.
func TestDevices(t *testing.T) {
	t.Parallel()
	s, k, dir := pretend(t)
	got, err := s.Devices([]spec.Device{
		{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, Mode: 0o666},
		{Path: "/dev/disk", Type: "b", Major: 8, Minor: 1, UID: 1, GID: 6, Mode: 0o640},
	}, mapping)
	if err != nil || got["/dev/fuse"] != dir+"/stage/0" || got["/dev/disk"] != dir+"/stage/1" {
		t.Errorf("%v, %v", got, err)
	}
	wantLog(t, k, "mount tmpfs stage mode=711,size=1m", fmt.Sprintf("change stage %#x", unix.MS_PRIVATE),
		"mknod 20666 10:229", "chown 0 200000:200000", "mknod 60640 8:1", "chown 1 200001:200006")
	if info, err := os.Stat(dir + "/stage/1"); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	for _, fail := range []string{"mknod", "chown"} {
		k.Fail = fail
		if _, err := s.Devices([]spec.Device{{Path: "/dev/fuse", Type: "c"}}, mapping); !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v", fail, err)
		}
	}
	if _, err := s.Devices([]spec.Device{{Path: "/dev/x", Type: "c", UID: 70000}}, mapping); !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "70000:0") {
		t.Errorf("an owner out of range: %v", err)
	}
}

// TestHidden: nobody but the container's root passes the directory.
func TestHidden(t *testing.T) {
	t.Parallel()
	s, k, _ := pretend(t)
	dir, err := s.Hidden(mapping)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0 {
		t.Errorf("%v, %v", info, err)
	}
	for _, name := range []string{"0", "proc", "sys"} {
		if !k.Has("chown " + name + " 200000:200000") {
			t.Errorf("%s is not the container's", name)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil { // so that the test can remove it
		t.Fatal(err)
	}
	k.Fail = "chown proc"
	if again, err := s.Hidden(mapping); !errors.Is(err, unix.EIO) || again != "" {
		t.Errorf("%q, %v", again, err)
	}
}

// TestUnits masks each unit by a link.
func TestUnits(t *testing.T) {
	t.Parallel()
	s, k, _ := pretend(t)
	dir, err := s.Units(mapping)
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range spec.MaskedUnits {
		if to, err := os.Readlink(filepath.Join(dir, unit)); err != nil || to != "/dev/null" || !k.Has("chown "+unit+" 200000:200000") {
			t.Errorf("%s: %q, %v", unit, to, err)
		}
	}
	k.Fail = "chown " + spec.MaskedUnits[0]
	if _, err := s.Units(mapping); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
}

// host makes a rootfs with these programs, and returns what looks for them.
func host(t *testing.T, s *Stage, dir string, names ...string) *Programs {
	t.Helper()
	bin := directory(t, dir, "rootfs/usr/bin")
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(bin, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p, err := s.FindPrograms(filepath.Join(dir, "rootfs"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() }) //nolint:errcheck // O_PATH
	return p
}

// TestStandInsHaveTheHostsValues, and those for connections are made for those who
// write them only.
func TestStandInsHaveTheHostsValues(t *testing.T) {
	t.Parallel()
	s, k, dir := pretend(t)
	programs := host(t, s, dir)
	all, err := s.StandIns(programs, mapping)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for i, f := range all {
		names[f.Name] = true
		want, err := os.ReadFile("/" + f.Name)
		got, err2 := os.ReadFile(filepath.Join(dir, "stage", fmt.Sprint(i)))
		if err := errors.Join(err, err2, f.Mount.Close()); err != nil || string(got) != string(want) {
			t.Errorf("%s is %q, not %q: %v", f.Name, got, want, err)
		}
		if !k.Has(fmt.Sprintf("chown %d 200000:200000", i)) {
			t.Errorf("%s is not the container's", f.Name)
		}
	}
	if !names["proc/sys/kernel/panic"] || names["proc/sys/net/netfilter/nf_conntrack_max"] {
		t.Errorf("there are %v", names)
	}
	for _, fail := range []string{"chown", "clone"} {
		k.Fail = fail
		if all, err := s.StandIns(programs, mapping); !errors.Is(err, unix.EIO) || all != nil {
			t.Errorf("%s: %v, %v", fail, all, err)
		}
	}
}
