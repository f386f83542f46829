// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

// TestClonePartialOfWhatHostsHave: a tree with a mount that takes no mapping comes
// out as a plain recursive clone does, whatever lies between.
func TestClonePartialOfWhatHostsHave(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	testmounts.RequireFeature(t, MappableTmpfs())
	ns := testmounts.Userns(t, idmap.Contiguous(300000, 65536))
	for _, test := range []struct {
		name     string
		make     func(t *testing.T, src string)
		files    map[string]string // their owners in the clone
		unmapped []string
	}{
		{
			name: "below a directory that only another id may enter",
			make: func(t *testing.T, src string) {
				testmounts.Mkdir(t, src+"/closed/plain")
				testmounts.Mkdir(t, src+"/closed/tmp")
				testmounts.Mount(t, "ramfs", src+"/closed/plain", "")
				testmounts.Write(t, src+"/closed/plain/file", "")
				testmounts.Mount(t, "tmpfs", src+"/closed/tmp", "")
				testmounts.Write(t, src+"/closed/tmp/file", "")
				testmounts.Check(t, os.Chmod(src+"/closed", 0o700))
				testmounts.Check(t, os.Chown(src+"/closed", 100000, 100000))
			},
			files:    map[string]string{"/closed": "65534:65534"},
			unmapped: []string{"/closed/plain"},
		},
		{
			name: "id-mapped already, as the rootfs of another container",
			make: func(t *testing.T, src string) {
				testmounts.Mkdir(t, src+"/other")
				testmounts.Write(t, src+"/rootfs/file", "")
				tree, err := CloneTree(-1, src+"/rootfs", CloneOptions{Userns: ns})
				testmounts.Check(t, err)
				testmounts.Attach(t, tree, src+"/other")
			},
			files:    map[string]string{"/rootfs/file": "300000:300000", "/other/file": "300000:300000"},
			unmapped: []string{"/other"},
		},
		{
			name: "hidden by a later mount on a directory above",
			make: func(t *testing.T, src string) {
				testmounts.Mkdir(t, src+"/a/b")
				testmounts.Mount(t, "ramfs", src+"/a/b", "")
				testmounts.Write(t, src+"/a/b/hidden", "")
				testmounts.Mount(t, "tmpfs", src+"/a", "")
				testmounts.Write(t, src+"/a/b/seen", "")
				testmounts.Mount(t, "ramfs", src+"/a/b", "")
				testmounts.Write(t, src+"/a/b/top", "")
			},
			files:    map[string]string{"/a/b/top": "0:0"},
			unmapped: []string{"/a/b", "/a/b"},
		},
		{
			name: "on top of each other",
			make: func(t *testing.T, src string) {
				testmounts.Mkdir(t, src+"/m")
				for i := range 4 {
					testmounts.Mount(t, []string{"tmpfs", "ramfs"}[i%2], src+"/m", "")
					testmounts.Write(t, fmt.Sprintf("%s/m/%d", src, i), "")
				}
				testmounts.Mkdir(t, src+"/m/sub")
				testmounts.Mount(t, "tmpfs", src+"/m/sub", "")
				testmounts.Write(t, src+"/m/sub/file", "")
			},
			files:    map[string]string{"/m/3": "0:0", "/m/sub/file": "300000:300000"},
			unmapped: []string{"/m", "/m"},
		},
		{
			name: "a file",
			make: func(t *testing.T, src string) {
				testmounts.Mkdir(t, src+"/ram")
				testmounts.Mount(t, "ramfs", src+"/ram", "")
				testmounts.Write(t, src+"/ram/file", "")
				testmounts.Write(t, src+"/file", "")
				testmounts.Check(t, unix.Mount(src+"/ram/file", src+"/file", "", unix.MS_BIND, ""))
				t.Cleanup(func() { testmounts.Check(t, unix.Unmount(src+"/file", 0)) })
			},
			files:    map[string]string{"/file": "0:0", "/ram/file": "0:0"},
			unmapped: []string{"/ram", "/file"},
		},
		{
			name: "hundreds",
			make: func(t *testing.T, src string) {
				testmounts.Mkdir(t, src+"/ram")
				testmounts.Mount(t, "ramfs", src+"/ram", "")
				for i := range 300 {
					at := fmt.Sprintf("%s/%d", src, i)
					testmounts.Mkdir(t, at)
					testmounts.Mount(t, "tmpfs", at, "size=4k")
				}
				testmounts.Write(t, src+"/299/file", "")
			},
			files:    map[string]string{"/299/file": "300000:300000"},
			unmapped: []string{"/ram"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := testmounts.Dir(t)
			src, dst := dir+"/src", dir+"/dst"
			testmounts.Mkdir(t, src)
			testmounts.Mkdir(t, dst)
			test.make(t, src)
			tree, unmapped, err := ClonePartial(-1, src, CloneOptions{Recursive: true, Userns: ns, Propagation: unix.MS_PRIVATE})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, u := range unmapped {
				if !errors.Is(u.Err, ErrNotIDMappable) && !errors.Is(u.Err, unix.EPERM) {
					t.Errorf("%s: %v", u.Mountpoint, u.Err)
				}
				names = append(names, strings.TrimPrefix(u.Mountpoint, src))
			}
			if got, want := fmt.Sprint(names), fmt.Sprint(test.unmapped); got != want {
				t.Errorf("unmapped %v, want %v", got, want)
			}
			testmounts.Attach(t, tree, dst)
			count := func(path string) int {
				mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
				testmounts.Check(t, err)
				return len(mounts)
			}
			if got, want := count(dst), count(src)+1; got != want {
				t.Errorf("%d mounts, want %d", got, want)
			}
			for file, want := range test.files {
				testmounts.WantOwner(t, dst+file, want)
			}
		})
	}
}
