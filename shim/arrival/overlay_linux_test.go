// SPDX-License-Identifier: Apache-2.0

package arrival

import (
	"os"
	"slices"
	"testing"

	"github.com/isolate-shim/isolate/shim/notify"
)

func TestPlaces(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		upper, work string
		want        []string
	}{
		{"/var/lib/docker/overlay2/1/diff", "/var/lib/docker/overlay2/1/work", []string{"/var/lib/docker"}},
		{"/var/lib/dockers/1/diff", "/var/lib/dockers/1/work", []string{"/var/lib/dockers", "/var/lib/dockers/1"}},
		{"/srv/docker/check-overlayfs-support1/upper", "/srv/docker/check-overlayfs-support1/work", []string{"/srv/docker", "/srv/docker/check-overlayfs-support1"}},
		{"/srv/snapshots/1/fs", "/srv/snapshots/1/work", []string{"/srv/snapshots", "/srv/snapshots/1"}},
		{"/one/u", "/one/w", []string{"/one"}},
		{"/var/lib/docker/u", "/srv/w", nil},
		{"/u", "/w", nil},
		{"/", "/", nil},
	} {
		if got := places(c.upper, c.work); !slices.Equal(got, c.want) {
			t.Errorf("%s, %s: %q, want %q", c.upper, c.work, got, c.want)
		}
	}
}

// TestOnRootfs: directories are looked up as the thread would, on its root's mount alone.
func TestOnRootfs(t *testing.T) {
	t.Parallel()
	opened := map[string]*os.File{}
	for _, name := range []string{"/", "/etc", "/proc"} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		opened[name] = f
	}
	for _, c := range []struct{ cwd, name, want string }{
		{"/proc", "/etc", "/etc"},
		{"/proc", "/../etc/../etc/.", "/etc"},
		{"/", "etc", "/etc"},
		{"/etc", ".", "/etc"},
		{"/etc", "..", ""},
		{"/etc", "/absent", ""},
		{"/proc", "sys", ""},
		{"/etc", "/proc/sys", ""},
		{"/etc", "/proc/self/root/etc", ""},
	} {
		if got := onRootfs(notify.Overlay{Root: opened["/"], Cwd: opened[c.cwd]}, c.name); got != c.want {
			t.Errorf("%q at %s: %q, want %q", c.name, c.cwd, got, c.want)
		}
	}
}
