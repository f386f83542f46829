// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/thread"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

func mountAt(t *testing.T, path string) *mount.Mount {
	t.Helper()
	m, err := mount.At(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestReplaceMounted leads an overlay through all that happens to one that a
// client has mounted: vacated, replaced by a mapped one, and given back.
func TestReplaceMounted(t *testing.T) {
	testmounts.RequireRoot(t)
	testmounts.RequireFeature(t, OverlayBy(MethodPrivate, testmounts.Dir(t)))
	for _, options := range []string{"", ",volatile", ",metacopy=on,redirect_dir=on", ",userxattr", ",index=off,xino=off"} {
		t.Run(strings.NewReplacer(",", " ", "=", " ").Replace(options), func(t *testing.T) {
			dir := testmounts.Dir(t)
			testmounts.Overlay(t, dir, options)
			m := mountAt(t, dir+"/merged")
			if !m.IsRoot() || m.Below != "" {
				t.Errorf("root %v, below %q", m.IsRoot(), m.Below)
			}
			o, err := parseMountedOverlay(m.Options, m.VFSOptions)
			testmounts.Check(t, err)
			testmounts.Check(t, m.Clear("placeholder"))
			m = mountAt(t, dir+"/merged")
			if m.Source != "placeholder" || m.FSType != "tmpfs" || strings.Count(testmounts.Lines(t, dir+"/merged"), "\n") != 1 {
				t.Fatalf("after vacating:\n%s", testmounts.Lines(t, dir+"/merged"))
			}

			mapping := idmap.Contiguous(300000, 65536)
			owner, _ := mapping.Root()
			built, err := o.BuildAgain(testmounts.Userns(t, mapping), owner, MethodAuto, "ours")
			testmounts.Check(t, err)
			testmounts.Check(t, errors.Join(m.Replace(built), m.Close(), built.Close()))
			testmounts.WantOwner(t, dir+"/merged/file", "300000:300000")
			testmounts.Check(t, thread.WithFSIDs(uint32(owner.UID), uint32(owner.GID), func() error { return os.WriteFile(dir+"/merged/new", nil, 0o600) }))
			testmounts.WantOwner(t, dir+"/upper/new", "0:0")

			m = mountAt(t, dir+"/merged")
			if m.Source != "ours" || strings.Count(testmounts.Lines(t, dir+"/merged"), "\n") != 1 {
				t.Fatalf("after replacing:\n%s", testmounts.Lines(t, dir+"/merged"))
			}
			testmounts.Check(t, m.Clear("placeholder"))
			plain, err := o.buildPlain("overlay", "")
			testmounts.Check(t, err)
			m = mountAt(t, dir+"/merged")
			testmounts.Check(t, errors.Join(m.Replace(plain), m.Close(), plain.Close()))
			testmounts.WantOwner(t, dir+"/merged/file", "0:0")
			testmounts.WantOwner(t, dir+"/merged/new", "0:0")
			testmounts.Check(t, os.WriteFile(dir+"/merged/file", nil, 0o600))

			m = mountAt(t, dir+"/merged")
			again, err := parseMountedOverlay(m.Options, m.VFSOptions)
			testmounts.Check(t, err)
			if got, want := strings.Join(again.mountOptions(), ","), strings.Join(o.mountOptions(), ","); got != want {
				t.Errorf("given back as %s, was %s", got, want)
			}
			testmounts.Check(t, errors.Join(m.Unmount(), m.Close()))
			if lines := testmounts.Lines(t, dir+"/merged"); lines != "" {
				t.Errorf("left:\n%s", lines)
			}
		})
	}
}

// TestBuildPlainRelative: layers that were given by short names stay short, since
// mount(2) takes one page of options.
func TestBuildPlainRelative(t *testing.T) {
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	o := Overlay{Upper: "upper", Work: "work"}
	var lower []string
	for i := range 120 {
		name := strings.Repeat("n", 30) + string(rune('a'+i/26)) + string(rune('a'+i%26))
		testmounts.Mkdir(t, dir+"/"+name)
		lower = append(lower, name)
	}
	o.Lower = lower
	for _, name := range []string{"upper", "work", "merged"} {
		testmounts.Mkdir(t, dir+"/"+name)
	}
	plain, err := o.buildPlain("overlay", dir)
	testmounts.Check(t, err)
	testmounts.Check(t, mount.Attach(plain, -1, dir+"/merged"))
	testmounts.Check(t, plain.Close())
	t.Cleanup(func() { testmounts.Unmount(t, dir+"/merged") })
	m := mountAt(t, dir+"/merged")
	defer m.Close() //nolint:errcheck // O_PATH
	got, err := parseMountedOverlay(m.Options, m.VFSOptions)
	testmounts.Check(t, err)
	base, err := got.base(dir+"/merged", func(path string) bool { _, err := os.Stat(path); return err == nil })
	if err != nil || base != dir {
		t.Errorf("base %q, %v; want %q", base, err, dir)
	}
}
