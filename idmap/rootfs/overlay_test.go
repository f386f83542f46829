// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/mount"
)

func TestParseOverlay(t *testing.T) {
	t.Parallel()
	value := func(k, v string) mount.Option { return mount.Option{Key: k, Value: v, HasValue: true} }
	adopted := idmap.Mapping{UIDs: []idmap.Range{{Host: 100000, Size: 65536}}, GIDs: []idmap.Range{{Host: 200000, Size: 10}, {Container: 10, Host: 300000, Size: 5}}}
	for _, tc := range []struct {
		name string
		in   []string
		want Overlay
		err  string
	}{
		{
			name: "containerd writable",
			in:   []string{"index=off", "workdir=/s/9/work", "upperdir=/s/9/fs", "lowerdir=/s/3/fs:/s/2/fs:/s/1/fs"},
			want: Overlay{
				Lower: []string{"/s/3/fs", "/s/2/fs", "/s/1/fs"}, Upper: "/s/9/fs", Work: "/s/9/work",
				Options: []mount.Option{value("index", "off")},
			},
		},
		{
			name: "containerd view",
			in:   []string{"ro", "lowerdir=/s/2/fs:/s/1/fs"},
			want: Overlay{Lower: []string{"/s/2/fs", "/s/1/fs"}, ReadOnly: true},
		},
		{
			name: "all that is known",
			in: []string{
				"lowerdir=/a", "upperdir=/u", "workdir=/w", "userxattr", "volatile", "metacopy=on", "redirect_dir=nofollow",
				"xino=off", "uuid=on", "nfs_export=off", "nosuid", "nodev", "noexec", "noatime", "rw", "defaults",
			},
			want: Overlay{
				Lower: []string{"/a"}, Upper: "/u", Work: "/w",
				Attrs: attrNosuid | attrNodev | attrNoexec | attrNoatime,
				Options: []mount.Option{
					{Key: "userxattr"},
					{Key: "volatile"},
					value("metacopy", "on"),
					value("redirect_dir", "nofollow"),
					value("xino", "off"),
					value("uuid", "on"),
					value("nfs_export", "off"),
				},
			},
		},
		{
			name: "later flags win",
			in:   []string{"lowerdir=/a", "nosuid", "noatime", "suid", "strictatime", "ro", "rw"},
			want: Overlay{Lower: []string{"/a"}, Attrs: attrStrictatime},
		},
		{
			name: "escapes",
			in:   []string{`lowerdir=/a\:b:/c\\d:/e\,f`, `upperdir=/u\:1`, `workdir=/w,2`},
			want: Overlay{Lower: []string{"/a:b", `/c\d`, "/e,f"}, Upper: "/u:1", Work: "/w,2"},
		},
		{
			name: "one layer for each option",
			in:   []string{"lowerdir+=/a:b", "lowerdir+=/c", "datadir+=/d"},
			want: Overlay{Lower: []string{"/a:b", "/c"}, DataLower: []string{"/d"}},
		},
		{
			name: "data-only layers",
			in:   []string{"lowerdir=/a:/b::/c::/d"},
			want: Overlay{Lower: []string{"/a", "/b"}, DataLower: []string{"/c", "/d"}},
		},
		{
			name: "adopted mapping",
			in:   []string{"lowerdir=/a", "uidmap=0:100000:65536", "gidmap=0:200000:10,10:300000:5"},
			want: Overlay{Lower: []string{"/a"}, Adopted: &adopted},
		},
		{
			name: "instructions to containerd are dropped",
			in:   []string{"lowerdir=/a", "X-containerd.mkdir.path=/x", "X-containerd.format"},
			want: Overlay{Lower: []string{"/a"}},
		},
		{
			name: "relative layers stay",
			in:   []string{"lowerdir=l/ABC:54/fs"},
			want: Overlay{Lower: []string{"l/ABC", "54/fs"}},
		},
		{
			name: "what is not known is for the kernel",
			in:   []string{"lowerdir=/a", "override_creds", `context="system_u:object_r:container_file_t:s0:c1,c2"`},
			want: Overlay{Lower: []string{"/a"}, Options: []mount.Option{
				{Key: "override_creds"},
				value("context", `"system_u:object_r:container_file_t:s0:c1,c2"`),
			}},
		},
		{name: "no lower", in: []string{"upperdir=/u", "workdir=/w"}, err: "no lowerdir"},
		{name: "empty layer", in: []string{"lowerdir=/a:"}, err: "empty lowerdir"},
		{name: "empty first layer", in: []string{"lowerdir=:/a"}, err: "empty lowerdir"},
		{name: "empty lowerdir", in: []string{"lowerdir="}, err: "empty lowerdir"},
		{name: "regular after data-only", in: []string{"lowerdir=/a::/b:/c"}, err: "follows a data-only"},
		{name: "upper alone", in: []string{"lowerdir=/a", "upperdir=/u"}, err: "go together"},
		{name: "empty upper", in: []string{"lowerdir=/a", "upperdir=", "workdir="}, err: "empty upperdir"},
		{name: "twice", in: []string{"lowerdir=/a", "lowerdir=/b"}, err: "twice"},
		{name: "bind", in: []string{"lowerdir=/a", "rbind"}, err: "no sense"},
		{name: "uidmap alone", in: []string{"lowerdir=/a", "uidmap=0:1:1"}, err: "gid mapping is empty"},
		{name: "bad uidmap", in: []string{"lowerdir=/a", "uidmap=0:1", "gidmap=0:1:1"}, err: "container:host:size"},
		{name: "empty option", in: []string{"lowerdir=/a", ""}, err: "empty option"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseOverlay(tc.in)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want one with %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func TestRelative(t *testing.T) {
	t.Parallel()
	o := Overlay{Lower: []string{"l/A", "/abs"}, DataLower: []string{"l/D"}, Upper: "x/diff", Work: "x/work"}
	got := o.relative("/var/lib/docker/overlay2")
	want := Overlay{
		Lower:     []string{"/var/lib/docker/overlay2/l/A", "/abs"},
		DataLower: []string{"/var/lib/docker/overlay2/l/D"},
		Upper:     "/var/lib/docker/overlay2/x/diff",
		Work:      "/var/lib/docker/overlay2/x/work",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if o.Lower[0] != "l/A" {
		t.Error("the original changed")
	}
	if ro := (Overlay{Lower: []string{"a"}}).relative("/d"); ro.Upper != "" || ro.Work != "" {
		t.Errorf("upper from nowhere: %+v", ro)
	}
}

func TestParseSuperOptions(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, in string
		want     Overlay
		err      bool
	}{
		{
			name: "docker",
			in:   "rw,lowerdir=/d/l/A:/d/l/B,upperdir=/d/x/diff,workdir=/d/x/work,index=off,nouserxattr",
			want: Overlay{
				Lower: []string{"/d/l/A", "/d/l/B"}, Upper: "/d/x/diff", Work: "/d/x/work",
				Options: []mount.Option{{Key: "index", Value: "off", HasValue: true}, {Key: "nouserxattr"}},
			},
		},
		{
			name: "blank, comma and colon in a path",
			in:   `ro,lowerdir=/a\040b\054c:/d\134:e`,
			want: Overlay{Lower: []string{"/a b,c", "/d:e"}, ReadOnly: true},
		},
		{
			name: "new mount api",
			in:   `rw,lowerdir+=/a,lowerdir+=/b:c,upperdir=/u,workdir=/w,uuid=on`,
			want: Overlay{
				Lower: []string{"/a", "/b:c"}, Upper: "/u", Work: "/w",
				Options: []mount.Option{{Key: "uuid", Value: "on", HasValue: true}},
			},
		},
		{name: "cut off", in: `rw,lowerdir=/a\04`, err: true},
		{name: "not octal", in: `rw,lowerdir=/a\0x0`, err: true},
		{name: "beyond a byte", in: `rw,lowerdir=/a\777`, err: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseMountedOverlay("", tc.in)
			if (err != nil) != tc.err || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func FuzzParseOverlay(f *testing.F) {
	f.Add("index=off\nworkdir=/w\nupperdir=/u\nlowerdir=/a:/b")
	f.Add(`lowerdir=/a\:b::/c`)
	f.Add("lowerdir+=/a\nuidmap=0:1:2\ngidmap=0:1:2")
	f.Fuzz(func(t *testing.T, in string) {
		o, err := parseOverlay(strings.Split(in, "\n"))
		if err != nil {
			return
		}
		// What was parsed, written as the kernel reads it, parses to the same.
		var lower []string
		for _, l := range o.Lower {
			lower = append(lower, layerEscaper.Replace(l))
		}
		line := "lowerdir=" + strings.Join(lower, ":")
		for _, l := range o.DataLower {
			line += "::" + layerEscaper.Replace(l)
		}
		again, err := parseOverlay([]string{line})
		if err != nil || !slices.Equal(again.Lower, o.Lower) || !slices.Equal(again.DataLower, o.DataLower) {
			t.Errorf("%q gives %+v and %v", line, again, err)
		}
	})
}

func FuzzParseSuperOptions(f *testing.F) {
	f.Add(`rw,lowerdir=/a\040b:/c,upperdir=/u,workdir=/w`)
	f.Add(`rw,lowerdir+=/a,lowerdir+=/b\134`)
	f.Fuzz(func(t *testing.T, in string) {
		o, err := parseMountedOverlay("", in)
		if err == nil && len(o.Lower) == 0 {
			t.Errorf("%q has no layer", in)
		}
	})
}
