// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"os"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// TestRestore has every state in which a shim, or its caller, can have left the
// mount point.
func TestRestore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for mounts")
	}
	const ours, theirs = "isolate-test", "overlay"
	for _, tc := range []struct {
		name string
		// leave prepares the mount point; p.plain and p.own mount there.
		leave func(p place)
		want  []string // sources of what is mounted afterwards, the lowest first
	}{
		{"nothing done", func(p place) { p.plain() }, []string{theirs}},
		{"container has run", func(p place) { p.own() }, []string{theirs}},
		{"between the overlays", func(p place) { p.placeholder() }, []string{theirs}},
		{"killed before the caller's was unmounted", func(p place) { p.placeholder(); p.plain() }, []string{theirs}},
		{"killed before the placeholder was unmounted", func(p place) { p.own(); p.placeholder() }, []string{theirs}},
		{"unmounted by the caller", func(place) {}, nil},
		{"mounted anew by the caller", func(p place) { p.plain() }, []string{theirs}},
		{"removed by the caller", func(p place) { p.check(os.Remove(p.dir + "/merged")) }, nil},
		{"layers removed by the caller", func(p place) {
			p.placeholder()
			p.check(os.Remove(p.dir + "/lower"))
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := place{t: t, dir: t.TempDir()}
			for _, name := range []string{"lower", "upper", "work", "merged"} {
				p.check(os.Mkdir(p.dir+"/"+name, 0o755))
			}
			r := &Replacement{Path: p.dir + "/merged", Source: ours, Was: theirs, Dir: p.dir, Options: []string{"lowerdir=lower", "upperdir=upper", "workdir=work"}}
			tc.leave(p)
			for range 2 { // it may run again
				if err := r.Restore(func(string) error { return nil }); err != nil {
					t.Fatal(err)
				}
				if got := p.mounts(); strings.Join(got, " ") != strings.Join(tc.want, " ") {
					t.Errorf("mounted are %q, want %q", got, tc.want)
				}
			}
		})
	}
}

// place is a directory with layers and a mount point.
type place struct {
	t   *testing.T
	dir string
}

func (p place) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p place) mount(source, kind, data string) {
	p.t.Helper()
	p.check(unix.Mount(source, p.dir+"/merged", kind, 0, data))
	p.t.Cleanup(func() { _ = unix.Unmount(p.dir+"/merged", unix.MNT_DETACH) })
}

func (p place) layers() string {
	return "lowerdir=" + p.dir + "/lower,upperdir=" + p.dir + "/upper,workdir=" + p.dir + "/work"
}

func (p place) plain() { p.mount("overlay", "overlay", p.layers()) }

func (p place) own() { p.mount("isolate-test", "overlay", p.layers()) }

func (p place) placeholder() { p.mount("isolate-test", "tmpfs", "") }

func (p place) mounts() (sources []string) {
	p.t.Helper()
	all, err := mountinfo.GetMounts(nil)
	p.check(err)
	for _, m := range all {
		if m.Mountpoint == p.dir+"/merged" {
			sources = append(sources, m.Source)
		}
	}
	return sources
}

func TestNewSourceIsUnlikeAnother(t *testing.T) {
	t.Parallel()
	if a, b := newSource(), newSource(); a == b || !strings.HasPrefix(a, "isolate-") {
		t.Errorf("%q and %q", a, b)
	}
}
