// SPDX-License-Identifier: Apache-2.0

package rootfs

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

	"github.com/isolate-shim/isolate/spec"
)

// TestParse: each way to name a rootfs is told from the others, whatever its options are.
func TestParse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		mounts  []*types.Mount
		kind    Kind
		dir     string
		upper   string
		adopted bool
	}{
		{name: "nothing", kind: Directory, dir: "/rootfs"},
		{name: "overlay", kind: OverlayMount, upper: "/u", mounts: []*types.Mount{{Type: "overlay", Options: []string{"lowerdir=/l", "upperdir=/u", "workdir=/w"}}}},
		{name: "overlay with a mapping", kind: OverlayMount, adopted: true, mounts: []*types.Mount{{Type: "overlay", Options: []string{"lowerdir=/l", "uidmap=0:1:2", "gidmap=0:1:2"}}}},
		{name: "overlay that makes no sense", kind: OverlayMount, mounts: []*types.Mount{{Type: "overlay", Options: []string{"upperdir=/u"}}}},
		{name: "bind", kind: Bind, dir: "/s", mounts: []*types.Mount{{Type: "bind", Source: "/s"}}},
		{name: "bind by option", kind: Bind, dir: "/s", mounts: []*types.Mount{{Source: "/s", Options: []string{"rbind"}}}},
		{name: "image", kind: Stack, mounts: []*types.Mount{{Type: "erofs", Source: "/i"}}},
		{name: "chain", kind: Stack, mounts: []*types.Mount{{Type: "erofs", Source: "/i"}, {Type: "overlay", Options: []string{"lowerdir=/l", "upperdir=/u", "workdir=/w"}}}},
		{name: "chain with a mapping", kind: Stack, adopted: true, mounts: []*types.Mount{{Type: "overlay", Options: []string{"lowerdir=/l", "uidmap=0:1:2", "gidmap=0:1:2"}}, {Type: "bind", Source: "/s"}}},
	} {
		s := Parse(test.mounts, "/rootfs")
		if s.Kind != test.kind || s.Dir != test.dir || s.Upper() != test.upper || s.Adopted() != test.adopted {
			t.Errorf("%s: kind %d, directory %q, upper %q, adopted %v", test.name, s.Kind, s.Dir, s.Upper(), s.Adopted())
		}
	}
}

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
		want    Snapshot
		refused string
	}{
		{name: "overlay", mounts: overlay("index=off", "lowerdir=/s/2/fs:/s/1/fs", "upperdir=/s/3/fs", "workdir=/s/3/work"), want: Snapshot{Dir: "/s/3/fs", Lower: []string{"/s/2/fs", "/s/1/fs"}}},
		{name: "view of layers", mounts: overlay("lowerdir=/s/2/fs:/s/1/fs"), refused: "without a layer to write to"},
		{name: "read-only overlay", mounts: overlay("ro", "lowerdir=/s/1/fs", "upperdir=/s/3/fs", "workdir=/s/3/work"), refused: "without a layer to write to"},
		{name: "directory", mounts: []*types.Mount{{Type: "bind", Source: "/n/3", Options: []string{"rbind", "rw"}}}, want: Snapshot{Dir: "/n/3"}},
		{name: "view of one layer", mounts: []*types.Mount{{Type: "bind", Source: "/s/1/fs", Options: []string{"ro", "rbind"}}}, refused: "a read-only view of a layer"},
		{name: "disk image", mounts: []*types.Mount{{Type: "ext4", Source: "/dev/mapper/x"}}, refused: "neither an overlay nor a directory but ext4"},
		{name: "chain", mounts: append([]*types.Mount{{Type: "erofs", Source: "/e"}}, overlay("lowerdir=/s/1/fs", "upperdir=/s/3/fs", "workdir=/s/3/work")...), refused: "neither an overlay nor a directory"},
		{name: "named by the client", want: Snapshot{Dir: dir}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse(test.mounts, dir).Snapshot()
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
	got, err := Parse(nil, dir+"/merged").Snapshot()
	if want := (Snapshot{Dir: dir + "/upper", Lower: []string{dir + "/lower"}}); err != nil || !reflect.DeepEqual(got, want) {
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
	got, err = Parse(nil, dir+"/merged").Snapshot()
	if want := (Snapshot{Dir: dir + "/upper", Lower: []string{dir + "/lower"}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("with relative layers got %+v, %v, want %+v", got, err, want)
	}
	// Layers that have lost their names: what lasts is the mount point.
	must(os.Rename(dir+"/upper", dir+"/elsewhere"))
	got, err = Parse(nil, dir+"/merged").Snapshot()
	if want := (Snapshot{Dir: dir + "/merged"}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("without an upper layer got %+v, %v, want %+v", got, err, want)
	}
}
