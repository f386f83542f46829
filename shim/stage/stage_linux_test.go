// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/shim/stage/stagetest"
	"github.com/isolate-shim/isolate/spec"
)

// mapping is a container's.
var mapping = idmap.Contiguous(200000, 65536)

// rootless is a mapping without the container's root.
var rootless = idmap.Mapping{UIDs: []idmap.Range{{Container: 1, Host: 5, Size: 1}}, GIDs: []idmap.Range{{Container: 1, Host: 5, Size: 1}}}

// pretend returns a stage over a kernel that only pretends, in a directory of the test.
func pretend(t *testing.T) (*Stage, *stagetest.Kernel, string) {
	t.Helper()
	k, dir := &stagetest.Kernel{}, t.TempDir()
	s := New(k, filepath.Join(dir, "stage"), "")
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, k, dir
}

// directory makes one.
func directory(t *testing.T, names ...string) string {
	t.Helper()
	dir := filepath.Join(names...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// wantLog compares what the kernel was asked for.
func wantLog(t *testing.T, k *stagetest.Kernel, want ...string) {
	t.Helper()
	if got := k.Log(); !slices.Equal(got, want) {
		t.Errorf("the kernel was asked for\n%s\nand not for\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestStageIsPrivate: nothing on it propagates; it is mounted once, when it is needed.
func TestStageIsPrivate(t *testing.T) {
	t.Parallel()
	s, k, dir := pretend(t)
	s.label = "system_u:object_r:container_file_t:s0:c1,c2"
	wantLog(t, k)
	for range 2 {
		if _, err := s.entry(); err != nil {
			t.Fatal(err)
		}
	}
	wantLog(t, k, `mount tmpfs stage mode=711,size=1m,context="system_u:object_r:container_file_t:s0:c1,c2"`, fmt.Sprintf("change stage %#x", unix.MS_PRIVATE))
	if got := k.Mounted(); !slices.Equal(got, []string{dir + "/stage"}) {
		t.Errorf("mounted are %q", got)
	}
	for _, fail := range []string{"mount tmpfs", "change stage"} {
		s, k, _ := pretend(t)
		k.Fail = fail
		if _, err := s.Hidden(mapping); !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v", fail, err)
		}
	}
	blocked := New(k, filepath.Join("/proc/self/status", "stage"), "")
	if _, err := blocked.entry(); err == nil || !strings.Contains(err.Error(), "create staging directory") {
		t.Errorf("no directory: %v", err)
	}
}

// TestUsernsIsMadeOnce for each mapping.
func TestUsernsIsMadeOnce(t *testing.T) {
	t.Parallel()
	s, k, _ := pretend(t)
	other := idmap.Contiguous(300000, 65536)
	for _, m := range []idmap.Mapping{mapping, other, mapping, other} {
		if _, err := s.Userns(m); err != nil {
			t.Fatal(err)
		}
	}
	wantLog(t, k, fmt.Sprintf("userns %v", mapping), fmt.Sprintf("userns %v", other))
	k.Fail = "userns"
	if _, err := s.Userns(idmap.Contiguous(400000, 1)); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
}

// TestLentUsernsIsNotMade, and stays open.
func TestLentUsernsIsNotMade(t *testing.T) {
	t.Parallel()
	s, k, _ := pretend(t)
	lent, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	s.Lend(mapping, lent)
	if f, err := s.Userns(mapping); f != lent || err != nil {
		t.Errorf("got %v, %v", f, err)
	}
	wantLog(t, k)
	if err := errors.Join(s.Close(), lent.Close()); err != nil {
		t.Error(err)
	}
}

// TestNothingWithoutTheContainersRoot: what is staged belongs to it.
func TestNothingWithoutTheContainersRoot(t *testing.T) {
	t.Parallel()
	s, k, dir := pretend(t)
	overlay := rootfs.Parse([]*types.Mount{{Type: "overlay", Options: []string{"lowerdir=/l", "upperdir=/u", "workdir=/w"}}}, "")
	for name, stage := range map[string]func() error{
		"hidden":    func() error { _, err := s.Hidden(rootless); return err },
		"units":     func() error { _, err := s.Units(rootless); return err },
		"stand-ins": func() error { _, err := s.StandIns(nil, rootless); return err },
		"stores":    func() error { _, _, err := s.Stores(nil, dir, rootless, nil); return err },
		"devices": func() error {
			_, err := s.Devices([]spec.Device{{Path: "/dev/fuse", Type: "c"}}, rootless)
			return err
		},
		"rootfs": func() error {
			_, err := s.Rootfs(t.Context(), overlay, filepath.Join(dir, "rootfs"), rootless, RootfsOptions{})
			return err
		},
		"chowned rootfs": func() error {
			_, err := s.Rootfs(t.Context(), overlay, filepath.Join(dir, "rootfs"), rootless, RootfsOptions{Chown: ChownAlways})
			return err
		},
		"replaced": func() error {
			opts := RootfsOptions{Premounted: &rootfs.Premounted{Path: dir}, Replacement: &rootfs.Replacement{Source: "isolate-x"}}
			_, err := s.Rootfs(t.Context(), rootfs.Parse(nil, dir), filepath.Join(dir, "rootfs"), rootless, opts)
			return err
		},
	} {
		if err := stage(); !errors.Is(err, spec.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(k.Mounted()) > 0 {
		t.Errorf("mounted are %q", k.Mounted())
	}
}
