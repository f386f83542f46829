// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/rig"
)

// premountedRootfs is an overlay that a client has mounted, as dockerd does, with
// further options. Its name and those of its layers need escapes.
func premountedRootfs(t *testing.T, options string) string {
	t.Helper()
	lower, dir := tinyRootfs(t, 0), filepath.Join(shortDir(t), "a b:c")
	for _, name := range []string{"upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	layer := strings.NewReplacer(`:`, `\:`).Replace(dir)
	if options, relative := strings.CutPrefix(options, "relative"); relative {
		// As dockerd does when there are many layers.
		if err := os.Symlink(lower, dir+"/lower"); err != nil {
			t.Fatal(err)
		}
		options = "nodev,lowerdir=lower,upperdir=upper,workdir=work" + options
		rig.Exec(t.Context(), "sh", "-ec", `cd "$1"; mount -i -t overlay -o "$2" theirs "$1/merged"`, "sh", dir, options).Must(t)
	} else {
		options = "lowerdir=" + lower + ",upperdir=" + layer + "/upper,workdir=" + layer + "/work" + options
		if err := unix.Mount("theirs", dir+"/merged", "overlay", unix.MS_NODEV, options); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		// It is the client's to unmount, whatever has happened, and only once.
		if err := unix.Unmount(dir+"/merged", 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
		if left := mountsAt(t, dir+"/merged"); len(left) > 0 {
			t.Errorf("still mounted: %v", left[0])
		}
	})
	return dir + "/merged"
}

func mountsAt(t *testing.T, path string) (found []*mountinfo.Info) {
	t.Helper()
	all, err := mountinfo.GetMounts(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.Mountpoint == path {
			found = append(found, m)
		}
	}
	return found
}

// plainAt fails the test unless the client's overlay is there alone, as it was.
func plainAt(t *testing.T, path string, want *mountinfo.Info) {
	t.Helper()
	got := mountsAt(t, path)
	if len(got) != 1 || got[0].Source != want.Source || got[0].Options != want.Options || got[0].VFSOptions != want.VFSOptions {
		t.Errorf("mounted is %+v\nwant %+v", got, want)
	}
}

// TestRootfsPremounted proves that an overlay which the client has mounted becomes the
// container's, and is the client's again afterwards.
func TestRootfsPremounted(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			for _, options := range []string{"", ",index=off,metacopy=on,redirect_dir=on", ",volatile", "relative"} {
				dir := premountedRootfs(t, options)
				was := mountsAt(t, dir)[0]
				argv := []string{"--rm", "--rootfs", "--runtime", shimName, dir, "a", "/inside", "report", "/inside", "/data"}
				var ids []string
				for range 2 { // with other ids
					r := answer[reported](t, m.Output(t, "run", argv...))
					if r.Files["/inside"] != "100755 0:0" || r.Files["/data"] != "40755 1000:1000" || !strings.HasSuffix(r.UIDMap, " 65536") {
						t.Errorf("container sees %v, ids %q", r.Files, r.UIDMap)
					}
					ids = append(ids, r.UIDMap)
					plainAt(t, dir, was)
				}
				if ids[0] == ids[1] {
					t.Errorf("both have the ids %q", ids[0])
				}
				// It fails late, when everything is mounted.
				failed := m.Output(t, "run", append([]string{"--user", "70000"}, argv...)...)
				if failed.Code == 0 || !strings.Contains(failed.Stderr, "user 70000 is outside") {
					t.Errorf("status %d, stderr %q", failed.Code, failed.Stderr)
				}
				plainAt(t, dir, was)
			}
		})
	}
}

// TestRootfsPremountedCrash has the shim killed while the client's overlay is the
// container's, and then while the client has unmounted it.
func TestRootfsPremountedCrash(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			dir := premountedRootfs(t, "")
			was := mountsAt(t, dir)[0]
			start := func() {
				t.Helper()
				t.Cleanup(func() { m.Container("a").Remove(t) })
				m.Ctr(t.Context(), "run", "--detach", "--null-io", "--rootfs", "--runtime", shimName, dir, "a", "/inside", "sleep").Must(t)
				own := mountsAt(t, dir)
				if len(own) != 1 || !strings.HasPrefix(own[0].Source, "isolate-") {
					t.Fatalf("mounted is %+v, want one of the shim's", own)
				}
			}
			start()
			killShim(t, "a")
			rig.Eventually(t, "containerd to clean up", func() bool {
				now := mountsAt(t, dir)
				return len(now) == 1 && now[0].Source == was.Source
			})
			m.Container("a").Remove(t)
			plainAt(t, dir, was)

			start()
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
			m.Container("a").Remove(t)
			if left := mountsAt(t, dir); len(left) > 0 {
				t.Errorf("the client has unmounted, and there is %+v", left[0])
			}
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil { // for the clean-up
				t.Fatal(err)
			}
		})
	}
}

// TestRootfsPremountedRefused has the overlays that cannot be mounted anew.
func TestRootfsPremountedRefused(t *testing.T) {
	rig.Require(t, rig.Root)
	m := demoMachine(t, ociRuntimes[0])
	for _, test := range []struct {
		name, options string
		rootfs        func(t *testing.T, dir string) string
		want          string
	}{
		{"index", ",index=on", nil, "mount it with index=off"},
		{"export", ",index=on,nfs_export=on", nil, "=off"},
		{"directory of an overlay", "", func(_ *testing.T, dir string) string { return dir + "/data" }, "overlay cannot be id-mapped by kernel"},
		{"mount below", "", func(t *testing.T, dir string) string {
			if err := unix.Mount("tmpfs", dir+"/data", "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir+"/data", 0); err != nil {
					t.Error(err)
				}
			})
			return dir
		}, "make that a mount of the container"},
		{"layer is gone", "", func(t *testing.T, dir string) string {
			// An overlay keeps its layers although they have lost their names.
			work := filepath.Join(filepath.Dir(dir), "work")
			if err := errors.Join(os.RemoveAll(work+"-2"), os.Rename(work, work+"-2")); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "its layers cannot be found: there is no directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := premountedRootfs(t, test.options)
			rootfs := dir
			if test.rootfs != nil {
				rootfs = test.rootfs(t, dir)
			}
			r := m.Output(t, "run", "--rm", "--rootfs", "--runtime", shimName, rootfs, "a", "/inside", "report", "/inside")
			if r.Code == 0 || !strings.Contains(r.Stderr, test.want) || !strings.Contains(r.Stderr, dir) {
				t.Errorf("status %d, stderr %q, want %q and the path", r.Code, r.Stderr, test.want)
			}
			if now := mountsAt(t, dir); len(now) != 1 || now[0].Source != "theirs" {
				t.Errorf("mounted is %+v, want what was there", now)
			}
		})
	}
}
