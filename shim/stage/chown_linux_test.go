// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/spec"
)

// TestSnapshotOf: only what belongs to one container is ever changed.
func TestSnapshotOf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	overlay := func(options ...string) []*types.Mount {
		return []*types.Mount{{Type: "overlay", Source: "overlay", Options: options}}
	}
	for _, test := range []struct {
		name    string
		mounts  []*types.Mount
		want    snapshot
		refused string
	}{
		{name: "overlay", mounts: overlay("index=off", "lowerdir=/s/2/fs:/s/1/fs", "upperdir=/s/3/fs", "workdir=/s/3/work"), want: snapshot{dir: "/s/3/fs", lower: []string{"/s/2/fs", "/s/1/fs"}}},
		{name: "view of layers", mounts: overlay("lowerdir=/s/2/fs:/s/1/fs"), refused: "without a layer to write to"},
		{name: "read-only overlay", mounts: overlay("ro", "lowerdir=/s/1/fs", "upperdir=/s/3/fs", "workdir=/s/3/work"), refused: "without a layer to write to"},
		{name: "directory", mounts: []*types.Mount{{Type: "bind", Source: "/n/3", Options: []string{"rbind", "rw"}}}, want: snapshot{dir: "/n/3"}},
		{name: "view of one layer", mounts: []*types.Mount{{Type: "bind", Source: "/s/1/fs", Options: []string{"ro", "rbind"}}}, refused: "a read-only view of a layer"},
		{name: "disk image", mounts: []*types.Mount{{Type: "ext4", Source: "/dev/mapper/x"}}, refused: "neither an overlay nor a directory but ext4"},
		{name: "chain", mounts: append([]*types.Mount{{Type: "erofs", Source: "/e"}}, overlay("lowerdir=/s/1/fs", "upperdir=/s/3/fs", "workdir=/s/3/work")...), refused: "neither an overlay nor a directory"},
		{name: "named by the client", want: snapshot{dir: dir}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := snapshotOf(test.mounts, dir)
			switch {
			case test.refused != "":
				if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), test.refused) {
					t.Errorf("got %v, %v", got, err)
				}
			case err != nil || !reflect.DeepEqual(got, test.want):
				t.Errorf("got %+v, %v, want %+v", got, err, test.want)
			}
		})
	}
}

// TestChownNeedsOneRange: a mapping of several ranges is no case for a chown.
func TestChownNeedsOneRange(t *testing.T) {
	t.Parallel()
	m := idmap.Mapping{
		UIDs: []idmap.Range{{Host: 100000, Size: 1000}, {Container: 1000, Host: 200000, Size: 64536}},
		GIDs: []idmap.Range{{Host: 100000, Size: 65536}},
	}
	_, err := New(Linux, t.TempDir(), "").chowned(t.Context(), nil, t.TempDir(), t.TempDir(), m, RootfsOptions{})
	if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "are not one range") {
		t.Errorf("got %v", err)
	}
}

// TestRefusalNamesTheSetting: an administrator is told kernel, file system and
// both ways out.
func TestRefusalNamesTheSetting(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{
		&mount.NotIDMappableError{Path: "/r", FSType: "ramfs", Kernel: "5.10.0"},
		&rootfs.UnbuildableError{Path: "/r", FSType: "ramfs", Kernel: "5.10.0"},
	} {
		err := refusal("rootfs", cause)
		if !errors.Is(err, errUnmappable) || !errors.Is(err, spec.ErrRefused) {
			t.Errorf("%v cannot be told from others", err)
		}
		for _, part := range []string{"5.10.0", "ramfs", "Linux 5.19", `rootfs.fallback = "chown"`} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
	}
	for _, cause := range []error{
		&mount.NotIDMappableError{Path: "/r", FSType: "overlay", Kernel: "6.18.1"},
		&rootfs.UnbuildableError{Path: "/r", FSType: "ext4", Kernel: "6.18.1"},
	} {
		if err := refusal("rootfs", cause); strings.Contains(err.Error(), "Linux 5.19") || !strings.Contains(err.Error(), "ext4, xfs, btrfs") {
			t.Errorf("%q blames a kernel that is new enough", err)
		}
	}
	if err := refusal("rootfs", os.ErrNotExist); errors.Is(err, errUnmappable) {
		t.Errorf("%v is taken for what a chown can help", err)
	}
}

// TestOverlayGivenAsDirectory: the state of a mounted overlay is that of its upper
// layer, which is what lasts.
func TestOverlayGivenAsDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
	if err := unix.Mount("overlay", dir+"/merged", "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir+"/merged", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	got, err := snapshotOf(nil, dir+"/merged")
	if want := (snapshot{dir: dir + "/upper", lower: []string{dir + "/lower"}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	// As Docker mounts: with names relative to a directory of its own.
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Unmount(dir+"/merged", 0))
	t.Chdir(dir)
	must(unix.Mount("overlay", dir+"/merged", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work"))
	got, err = snapshotOf(nil, dir+"/merged")
	if want := (snapshot{dir: dir + "/upper", lower: []string{dir + "/lower"}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("with relative layers got %+v, %v, want %+v", got, err, want)
	}
	// Layers that have lost their names: what lasts is the mount point.
	must(os.Rename(dir+"/upper", dir+"/elsewhere"))
	got, err = snapshotOf(nil, dir+"/merged")
	if want := (snapshot{dir: dir + "/merged"}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("without an upper layer got %+v, %v, want %+v", got, err, want)
	}
	if first := Preferred(chown.NewStore(dir+"/store"), nil, dir+"/merged"); first != 0 {
		t.Errorf("ids from %d on are preferred for a new rootfs", first)
	}
}
