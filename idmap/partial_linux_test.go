// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// TestClonePartialOfWhatHostsHave: a tree with a mount that takes no mapping comes
// out as a plain recursive clone does, whatever lies between.
func TestClonePartialOfWhatHostsHave(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	requireFeature(t, MappableTmpfs())
	ns := userns(t, Contiguous(300000, 65536))
	for _, test := range []struct {
		name     string
		make     func(t *testing.T, src string)
		files    map[string]string // their owners in the clone
		unmapped []string
	}{
		{
			name: "below a directory that only another id may enter",
			make: func(t *testing.T, src string) {
				mkdir(t, src+"/closed/plain")
				mkdir(t, src+"/closed/tmp")
				mount(t, "ramfs", src+"/closed/plain", "")
				write(t, src+"/closed/plain/file", "")
				mount(t, "tmpfs", src+"/closed/tmp", "")
				write(t, src+"/closed/tmp/file", "")
				check(t, os.Chmod(src+"/closed", 0o700))
				check(t, os.Chown(src+"/closed", 100000, 100000))
			},
			files:    map[string]string{"/closed": "65534:65534"},
			unmapped: []string{"/closed/plain"},
		},
		{
			name: "id-mapped already, as the rootfs of another container",
			make: func(t *testing.T, src string) {
				mkdir(t, src+"/other")
				write(t, src+"/rootfs/file", "")
				tree, err := CloneTree(-1, src+"/rootfs", CloneOptions{Userns: ns})
				check(t, err)
				attach(t, tree, src+"/other")
			},
			files:    map[string]string{"/rootfs/file": "300000:300000", "/other/file": "300000:300000"},
			unmapped: []string{"/other"},
		},
		{
			name: "hidden by a later mount on a directory above",
			make: func(t *testing.T, src string) {
				mkdir(t, src+"/a/b")
				mount(t, "ramfs", src+"/a/b", "")
				write(t, src+"/a/b/hidden", "")
				mount(t, "tmpfs", src+"/a", "")
				write(t, src+"/a/b/seen", "")
				mount(t, "ramfs", src+"/a/b", "")
				write(t, src+"/a/b/top", "")
			},
			files:    map[string]string{"/a/b/top": "0:0"},
			unmapped: []string{"/a/b", "/a/b"},
		},
		{
			name: "on top of each other",
			make: func(t *testing.T, src string) {
				mkdir(t, src+"/m")
				for i := range 4 {
					mount(t, []string{"tmpfs", "ramfs"}[i%2], src+"/m", "")
					write(t, fmt.Sprintf("%s/m/%d", src, i), "")
				}
				mkdir(t, src+"/m/sub")
				mount(t, "tmpfs", src+"/m/sub", "")
				write(t, src+"/m/sub/file", "")
			},
			files:    map[string]string{"/m/3": "0:0", "/m/sub/file": "300000:300000"},
			unmapped: []string{"/m", "/m"},
		},
		{
			name: "a file",
			make: func(t *testing.T, src string) {
				mkdir(t, src+"/ram")
				mount(t, "ramfs", src+"/ram", "")
				write(t, src+"/ram/file", "")
				write(t, src+"/file", "")
				check(t, unix.Mount(src+"/ram/file", src+"/file", "", unix.MS_BIND, ""))
				t.Cleanup(func() { check(t, unix.Unmount(src+"/file", 0)) })
			},
			files:    map[string]string{"/file": "0:0", "/ram/file": "0:0"},
			unmapped: []string{"/ram", "/file"},
		},
		{
			name: "hundreds",
			make: func(t *testing.T, src string) {
				mkdir(t, src+"/ram")
				mount(t, "ramfs", src+"/ram", "")
				for i := range 300 {
					at := fmt.Sprintf("%s/%d", src, i)
					mkdir(t, at)
					mount(t, "tmpfs", at, "size=4k")
				}
				write(t, src+"/299/file", "")
			},
			files:    map[string]string{"/299/file": "300000:300000"},
			unmapped: []string{"/ram"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := workDir(t)
			src, dst := dir+"/src", dir+"/dst"
			mkdir(t, src)
			mkdir(t, dst)
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
			attach(t, tree, dst)
			count := func(path string) int {
				mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
				check(t, err)
				return len(mounts)
			}
			if got, want := count(dst), count(src)+1; got != want {
				t.Errorf("%d mounts, want %d", got, want)
			}
			for file, want := range test.files {
				wantOwner(t, dst+file, want)
			}
		})
	}
}
