// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/mount"
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
	if err := mkdirAll(root, "/link/new"); !errors.Is(err, errElsewhere) {
		t.Errorf("through a link: %v", err)
	}
	if _, err := os.Stat(dir + "/var/new"); err == nil {
		t.Error("it was made elsewhere")
	}
}

// TestStagedVolume stages clones with the flags of the spec.
func TestStagedVolume(t *testing.T) {
	t.Parallel()
	s, k, dir := pretend(t)
	source := directory(t, dir, "data")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, v := range []spec.Volume{
		{Destination: "/d", Source: source, Mapping: &mapping, Recursive: true, Flags: []string{"rro", "rnosuid"}},
		{Destination: "/f", Source: file},
	} {
		path, warnings, err := s.Volume(t.Context(), v, true)
		if err != nil || len(warnings) > 0 || path != filepath.Join(dir, "stage", fmt.Sprint(i)) {
			t.Fatalf("%q, %q, %v", path, warnings, err)
		}
		if info, err := os.Stat(path); err != nil || info.IsDir() != (i == 0) {
			t.Errorf("mount point of %s: %v, %v", v.Destination, info, err)
		}
	}
	wantLog(t, k, fmt.Sprintf("userns %v", mapping),
		fmt.Sprintf("clone data %#x", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID),
		"mount tmpfs stage mode=711,size=1m", fmt.Sprintf("change stage %#x", unix.MS_PRIVATE), "attach 0", "clone file 0x0", "attach 1")
	if flags, err := s.Flags(); err != nil || len(flags) > 0 { // nothing is mounted
		t.Errorf("%v, %v", flags, err)
	}
	for _, fail := range []string{"userns", "clone", "attach"} {
		k.Fail = fail
		other := idmap.Contiguous(300000, 65536)
		if _, _, err := s.Volume(t.Context(), spec.Volume{Destination: "/d", Source: source, Mapping: &other}, false); !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "volume /d") {
			t.Errorf("%s: %v", fail, err)
		}
	}
	if _, _, err := s.Volume(t.Context(), spec.Volume{Destination: "/d", Source: dir + "/absent"}, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no source: %v", err)
	}
	if _, _, err := s.Volume(t.Context(), spec.Volume{Destination: "/sys", Kernel: "sysfs", Source: dir + "/absent"}, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no namespace: %v", err)
	}
}

// TestUnmappedVolume is a warning, or an error if the administrator says so. The
// kernel's own file systems do not count.
func TestUnmappedVolume(t *testing.T) {
	t.Parallel()
	nfs := mount.Unmapped{FSType: "nfs", Err: &mount.NotIDMappableError{Path: "/n", FSType: "nfs", Kernel: "6.1"}}
	for _, c := range []struct {
		name     string
		unmapped []mount.Unmapped
		require  bool
		warning  string
		refused  bool
	}{
		{name: "kernel's", unmapped: []mount.Unmapped{{FSType: "proc", Err: errors.New("x")}}, require: true},
		{name: "warning", unmapped: []mount.Unmapped{nfs}, warning: "show as nobody"},
		{name: "more of them", unmapped: []mount.Unmapped{nfs, {FSType: "sysfs"}, nfs, nfs}, warning: "nor can 2 other mounts in it"},
		{name: "required", unmapped: []mount.Unmapped{nfs}, require: true, refused: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, k, dir := pretend(t)
			k.Unmapped = c.unmapped
			path, warnings, err := s.Volume(t.Context(), spec.Volume{Destination: "/d", Source: directory(t, dir, "data"), Mapping: &mapping}, c.require)
			switch {
			case c.refused:
				if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "volumes.require_idmap") || path != "" || len(k.Mounted()) > 0 {
					t.Errorf("%q, %v", path, err)
				}
			case err != nil || len(warnings) > 1 || strings.Contains(strings.Join(warnings, ""), c.warning) != true || (c.warning == "") != (len(warnings) == 0):
				t.Errorf("%q, %v", warnings, err)
			}
		})
	}
}

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

// TestReachable looks at directories of callers only, not at a snapshotter's layers.
func TestReachable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bind := func(source string) []*types.Mount {
		return []*types.Mount{{Type: "bind", Source: source, Options: []string{"rbind"}}}
	}
	for _, c := range []struct {
		name   string
		mounts []*types.Mount
		dir    string
		there  bool
	}{
		{"directory", nil, dir, true},
		{"no directory", nil, dir + "/absent", false},
		{"bind", bind(dir), dir + "/absent", true},
		{"bind of nothing", bind(dir + "/absent"), dir, false},
		{"overlay", []*types.Mount{{Type: "overlay"}}, dir + "/absent", true},
	} {
		if err := Reachable(t.Context(), rootfs.Parse(c.mounts, c.dir)); (err == nil) != c.there {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if got := mountedAt("/proc/self"); !strings.Contains(got, `proc at "/proc"`) {
		t.Errorf("/proc/self is on %s", got)
	}
}

// TestBounded: who waits for a file system that does not answer is let go, and what
// comes too late is closed.
func TestBounded(t *testing.T) {
	t.Parallel()
	f, err := bounded(t.Context(), "/d", func() (*os.File, error) { return os.Open("/dev/null") })
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := reader.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = bounded(ctx, "/d", func() (*os.File, error) { <-answer; return writer, nil })
	if err == nil || !strings.Contains(err.Error(), `source "/d": its file system does not answer`) {
		t.Errorf("got %v", err)
	}
	close(answer)
	if n, err := reader.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) { // once nobody has the other end
		t.Errorf("%d, %v", n, err)
	}
}

// TestAttended waits for a run over a tree, closes the tree, and lets go of the
// snapshot if the run fails.
func TestAttended(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := chown.NewStore(dir + "/states")
	for _, fails := range []error{nil, unix.EIO} {
		held, err := store.Acquire(t.Context(), dir, "ns/a", idmap.Span{First: 200000, Size: 65536}, nil)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		report, err := attended(t.Context(), held, tree, chown.Options{}, func(o chown.Options) (chown.Report, error) {
			o.Progress(chown.Report{Inodes: 3})
			return chown.Report{Inodes: 7}, fails
		})
		if !errors.Is(err, fails) || report.Inodes != 7 {
			t.Errorf("%v, %v", report, err)
		}
		if tree.Close() == nil {
			t.Error("the tree was not closed")
		}
		if fails == nil {
			if err := held.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := refuseBusy(&chown.BusyError{Path: dir}); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("busy: %v", err)
	}
	if err := refuseBusy(unix.EIO); errors.Is(err, spec.ErrRefused) || !errors.Is(err, unix.EIO) {
		t.Errorf("other: %v", err)
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
