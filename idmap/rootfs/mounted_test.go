// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/internal/linux/mount"
)

func TestParseMountedOverlay(t *testing.T) {
	t.Parallel()
	value := func(k, v string) mount.Option { return mount.Option{Key: k, Value: v, HasValue: true} }
	for _, tc := range []struct {
		name, mount, super string
		want               Overlay
	}{
		{
			name: "dockerd", mount: "rw,relatime",
			super: "rw,lowerdir=/d/l/A:/d/l/B,upperdir=/d/x/diff,workdir=/d/x/work,index=off",
			want: Overlay{
				Lower: []string{"/d/l/A", "/d/l/B"}, Upper: "/d/x/diff", Work: "/d/x/work",
				Options: []mount.Option{value("index", "off")},
			},
		},
		{
			name: "all that has to be kept", mount: "rw,nosuid,nodev,noatime",
			super: "rw,lowerdir=/a,upperdir=/u,workdir=/w,redirect_dir=on,metacopy=on,xino=off,userxattr,volatile,uuid=on",
			want: Overlay{
				Lower: []string{"/a"}, Upper: "/u", Work: "/w", Attrs: attrNosuid | attrNodev | attrNoatime,
				Options: []mount.Option{value("redirect_dir", "on"), value("metacopy", "on"), value("xino", "off"), {Key: "userxattr"}, {Key: "volatile"}, value("uuid", "on")},
			},
		},
		{
			name: "read-only mount of a writable file system", mount: "ro,relatime", super: "rw,lowerdir=/a,upperdir=/u,workdir=/w",
			want: Overlay{Lower: []string{"/a"}, Upper: "/u", Work: "/w", ReadOnly: true},
		},
		{
			name: "SELinux", mount: "rw,relatime",
			super: `rw,context="system_u:object_r:container_file_t:s0:c1,c2",lowerdir=/a,upperdir=/u,workdir=/w`,
			want: Overlay{
				Lower: []string{"/a"}, Upper: "/u", Work: "/w",
				Options: []mount.Option{value("context", `"system_u:object_r:container_file_t:s0:c1,c2"`)},
			},
		},
		{
			name: "labels of the files", mount: "rw,relatime", super: "rw,seclabel,lowerdir=/a,upperdir=/u,workdir=/w",
			want: Overlay{Lower: []string{"/a"}, Upper: "/u", Work: "/w"},
		},
		{
			name: "escapes", mount: "rw", super: `rw,lowerdir=/a\040b:/c\134:d:/e\134\054f,upperdir=/u,workdir=/w`,
			want: Overlay{Lower: []string{"/a b", "/c:d", "/e,f"}, Upper: "/u", Work: "/w"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseMountedOverlay(tc.mount, tc.super)
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Fatalf("got %+v, %v\nwant %+v", got, err, tc.want)
			}
			again, err := parseOverlay(got.mountOptions())
			if err != nil || !reflect.DeepEqual(again, tc.want) {
				t.Errorf("written as %q it is read as %+v, %v", got.mountOptions(), again, err)
			}
		})
	}
}

func TestReplaceable(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]string{
		"lowerdir=/a,upperdir=/u,workdir=/w":                           "",
		"lowerdir=/a,index=off,nfs_export=off":                         "",
		"lowerdir=/a,upperdir=/u,workdir=/w,index=on":                  "index=off",
		"lowerdir=/a,upperdir=/u,workdir=/w,index=off,nfs_export=on":   "nfs_export=off",
		"lowerdir=/a,upperdir=/u,workdir=/w,redirect_dir=on,xino=auto": "",
	} {
		o, err := parseMountedOverlay("rw", options)
		if err != nil {
			t.Fatal(err)
		}
		switch err := o.replaceable(); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", options, err, want)
		}
	}
}

func TestBase(t *testing.T) {
	t.Parallel()
	disk := map[string]bool{}
	for _, dir := range []string{
		"/d/overlay2/l/A", "/d/overlay2/l/B", "/d/overlay2/x/diff", "/d/overlay2/x/work",
		"/c/snapshots/1/fs", "/c/snapshots/2/fs", "/c/snapshots/9/fs", "/c/snapshots/9/work",
	} {
		disk[dir] = true
	}
	for _, tc := range []struct {
		name    string
		overlay Overlay
		path    string
		want    string
		err     error
	}{
		{
			name: "absolute", path: "/m",
			overlay: Overlay{Lower: []string{"/nowhere"}, Upper: "/u", Work: "/w"},
		},
		{
			name: "dockerd with many layers", path: "/d/overlay2/x/merged", want: "/d/overlay2",
			overlay: Overlay{Lower: []string{"l/A", "l/B"}, Upper: "x/diff", Work: "x/work"},
		},
		{
			name: "containerd with many layers", path: "/d/rootfs/overlayfs/x", want: "/c/snapshots",
			overlay: Overlay{Lower: []string{"1/fs", "2/fs"}, Upper: "/c/snapshots/9/fs", Work: "/c/snapshots/9/work"},
		},
		{
			name: "one layer is gone", path: "/d/overlay2/x/merged", err: ErrNoLayers,
			overlay: Overlay{Lower: []string{"l/A", "l/C"}, Upper: "x/diff", Work: "x/work"},
		},
		{
			name: "no path", path: "", err: ErrNoLayers,
			overlay: Overlay{Lower: []string{"l/A", "l/B"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := tc.overlay.base(tc.path, func(dir string) bool { return disk[dir] })
			if got != tc.want || !errors.Is(err, tc.err) || (err != nil) != (tc.err != nil) {
				t.Errorf("got %q, %v; want %q, %v", got, err, tc.want, tc.err)
			}
		})
	}
}

func FuzzParseMountedOverlay(f *testing.F) {
	f.Add("rw,relatime", `rw,lowerdir=/a\040b:/c,upperdir=/u,workdir=/w,index=off`)
	f.Add("ro,nosuid", `rw,context="a:b,c",lowerdir=/a,seclabel`)
	f.Add("rw", `rw,lowerdir+=/a,lowerdir+=/b\134,datadir+=/d`)
	f.Fuzz(func(t *testing.T, mount, super string) {
		o, err := parseMountedOverlay(mount, super)
		if err != nil || o.Adopted != nil {
			return
		}
		// What is written into the record is the same overlay.
		again, err := parseOverlay(o.mountOptions())
		if err != nil || !reflect.DeepEqual(again, o) {
			t.Errorf("%q is read as %+v, %v\nwant %+v", o.mountOptions(), again, err, o)
		}
		if _, err := o.base("/m", func(string) bool { return false }); err != nil && !errors.Is(err, ErrNoLayers) {
			t.Errorf("base: %v", err)
		}
	})
}
