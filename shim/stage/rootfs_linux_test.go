// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/spec"
)

// TestStagedRootfs is built from what the snapshotter gives.
func TestStagedRootfs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		mounts func(dir string) []*types.Mount
		nodev  bool
		want   string // of the log, between userns and attach
		upper  string
		mapped bool
	}{
		{name: "overlay", want: "overlay upper for 200000 by auto", upper: "upper", mounts: func(dir string) []*types.Mount {
			return []*types.Mount{{Type: "overlay", Options: []string{"lowerdir=" + dir + "/lower", "upperdir=" + dir + "/upper", "workdir=" + dir + "/work"}}}
		}},
		{name: "directory", want: fmt.Sprintf("clone lower %#x", unix.MOUNT_ATTR_NODEV), nodev: true, mounts: func(string) []*types.Mount { return nil }},
		{name: "bind", want: fmt.Sprintf("clone upper %#x", unix.MOUNT_ATTR_RDONLY), mounts: func(dir string) []*types.Mount {
			return []*types.Mount{{Type: "bind", Source: dir + "/upper", Options: []string{"rbind", "ro"}}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, k, dir := pretend(t)
			for _, layer := range []string{"lower", "upper", "work"} {
				directory(t, dir, layer)
			}
			source := rootfs.Parse(c.mounts(dir), dir+"/lower")
			opts := RootfsOptions{NoDev: c.nodev, Store: chown.NewStore(dir + "/states")}
			target := filepath.Join(dir, "rootfs")
			snapshot, err := s.Rootfs(t.Context(), source, target, mapping, opts)
			if err != nil || snapshot != nil {
				t.Errorf("%v, %v", snapshot, err)
			}
			wantLog(t, k, fmt.Sprintf("userns %v", mapping), c.want, "attach rootfs")
			if got := filepath.Base(source.Upper()); got != c.upper && (got != "." || c.upper != "") {
				t.Errorf("upper layer is %q", got)
			}
			if source.Adopted() {
				t.Error("it counts as mapped")
			}
		})
	}
}

// TestRootfsFails, and says why.
func TestRootfsFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		mounts []*types.Mount
		target string
		says   string
	}{
		{"chain of an unknown kind", []*types.Mount{{Type: "no-such-fs", Source: "x"}, {Type: "no-such-fs", Source: "y"}}, "rootfs", "mount rootfs"},
		{"overlay that cannot be read", []*types.Mount{{Type: "overlay", Options: []string{"upperdir=/u"}}}, "rootfs", "rootfs: "},
		{"no directory", []*types.Mount{{Type: "bind", Source: "/proc/absent"}}, "rootfs", "/proc/absent"},
		{"no mount point", nil, "absent/rootfs", "create rootfs directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, k, dir := pretend(t)
			target := filepath.Join(dir, c.target)
			source := rootfs.Parse(c.mounts, dir)
			_, err := s.Rootfs(t.Context(), source, target, mapping, RootfsOptions{Store: chown.NewStore(dir + "/states")})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			if err := s.PlainRootfs(source, target); err == nil && c.name != "no mount point" {
				t.Error("it was mounted plainly")
			}
			if len(k.Mounted()) > 0 {
				t.Errorf("mounted are %q", k.Mounted())
			}
		})
	}
	s, _, dir := pretend(t)
	if err := s.PlainRootfs(rootfs.Parse(nil, dir), filepath.Join(dir, "rootfs")); err != nil || !s.moved {
		t.Errorf("nothing to mount: %v", err)
	}
}

// TestRootfsThatCannotBeMapped is refused, or has its ids moved if the administrator
// allows it; here that fails too, for want of a layer to write to.
func TestRootfsThatCannotBeMapped(t *testing.T) {
	t.Parallel()
	for policy, says := range map[ChownPolicy]string{
		ChownNever:    "rootfs.fallback",
		ChownFallback: "cannot be moved on disk: it is a read-only view",
		ChownAlways:   "cannot be moved on disk: it is a read-only view",
	} {
		s, k, dir := pretend(t)
		k.Fail, k.Err = "clone", &mount.NotIDMappableError{Path: "/r", FSType: "ramfs", Kernel: "6.1"}
		mounts := []*types.Mount{{Type: "bind", Source: directory(t, dir, "data"), Options: []string{"ro", "rbind"}}}
		_, err := s.Rootfs(t.Context(), rootfs.Parse(mounts, ""), filepath.Join(dir, "rootfs"), mapping, RootfsOptions{Chown: policy, Store: chown.NewStore(dir + "/states")})
		if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), says) {
			t.Errorf("policy %d: %v", policy, err)
		}
		if k.Has("userns") != (policy != ChownAlways) {
			t.Errorf("policy %d: %q", policy, k.Log())
		}
	}
}

// TestPlainRootfsOfADirectory: what is walked is the one mount that it is on.
func TestPlainRootfsOfADirectory(t *testing.T) {
	t.Parallel()
	s, k, dir := pretend(t)
	source, target := directory(t, dir, "data"), directory(t, dir, "rootfs")
	m := &rootfsMount{Stage: s, source: rootfs.Parse(nil, source), target: target}
	m.NoDev, m.Store = true, chown.NewStore(dir+"/states")
	tree, err := m.plain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tree.Close()
	wantLog(t, k, fmt.Sprintf("clone data %#x", unix.MOUNT_ATTR_NODEV), "attach rootfs", "clone data 0x0")
	k.Fail = "attach"
	if _, err := m.plain(t.Context()); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
	if moved, err := m.hasMoved(); moved || err != nil {
		t.Errorf("%v, %v", moved, err)
	}
	if first := Preferred(m.Store, m.source); first != 0 {
		t.Errorf("ids from %d on are preferred for a new rootfs", first)
	}
}

// TestPremountedIsReplacedOnlyIfItIsTheSame: the caller's mount may have gone meanwhile,
// and its layers are there before it is taken away.
func TestPremountedIsReplacedOnlyIfItIsTheSame(t *testing.T) {
	t.Parallel()
	s, k, dir := pretend(t)
	merged := directory(t, dir, "merged")
	if p, err := rootfs.Parse(nil, merged).Premounted(); p != nil || err != nil {
		t.Errorf("a directory: %+v, %v", p, err)
	}
	if _, err := rootfs.Parse(nil, dir+"/absent").Premounted(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	p := &rootfs.Premounted{Path: merged, ID: -1, Dir: dir, Overlay: rootfs.Overlay{Lower: []string{"lower"}, Upper: "upper", Work: "work"}}
	opts := RootfsOptions{Store: chown.NewStore(dir + "/states"), Premounted: p, Replacement: p.Replacement()}
	replace := func() error {
		_, err := s.Rootfs(t.Context(), rootfs.Parse(nil, merged), filepath.Join(dir, "rootfs"), mapping, opts)
		return err
	}
	for _, layer := range []string{"upper", "work", "lower"} {
		if err := replace(); !errors.Is(err, rootfs.ErrNoLayers) {
			t.Errorf("without %s: %v", layer, err)
		}
		directory(t, dir, layer)
	}
	if p.Upper() != dir+"/upper" {
		t.Errorf("upper layer is %q", p.Upper())
	}
	if err := replace(); !errors.Is(err, rootfs.ErrReplaced) {
		t.Errorf("another one is there: %v", err)
	}
	if len(k.Mounted()) > 0 {
		t.Errorf("mounted are %q", k.Mounted())
	}
}
