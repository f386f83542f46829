// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

// withoutSetattr makes mount_setattr what it is before Linux 5.12. Tests that use
// it must not run beside others.
func withoutSetattr(t *testing.T) {
	t.Helper()
	mountSetattr = func(int, string, uint, *unix.MountAttr) error { return unix.ENOSYS }
	t.Cleanup(func() { mountSetattr = unix.MountSetattr })
}

// TestCloneWithoutSetattr: clones get the same flags and propagation by mount(2)
// as by mount_setattr(2), also where mounts are below.
func TestCloneWithoutSetattr(t *testing.T) {
	testmounts.RequireRoot(t)
	for _, test := range []struct {
		name     string
		options  CloneOptions
		top      uint64 // set by Restrict
		flags    uintptr
		want     string // flags and peer groups of the top
		wantDown string // and of the mount below, "" for none
	}{
		{name: "read-only", options: CloneOptions{SetAttrs: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE}, want: "ro,relatime"},
		{name: "all below", options: CloneOptions{Recursive: true, SetAttrs: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOEXEC, Propagation: unix.MS_PRIVATE}, want: "ro,noexec,relatime", wantDown: "ro,nosuid,noexec,relatime"},
		{name: "nothing", options: CloneOptions{Recursive: true, Propagation: unix.MS_PRIVATE}, want: "rw,relatime", wantDown: "rw,nosuid,relatime"},
		{name: "flags stay", options: CloneOptions{SetAttrs: unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}, flags: unix.MS_NOSUID | unix.MS_NODIRATIME, want: "rw,nosuid,nodev,nodiratime,relatime"},
		{name: "flag goes", options: CloneOptions{ClearAttrs: unix.MOUNT_ATTR_NOSUID, Propagation: unix.MS_PRIVATE}, flags: unix.MS_NOSUID, want: "rw,relatime"},
		{name: "noatime", options: CloneOptions{SetAttrs: unix.MOUNT_ATTR_NOATIME, ClearAttrs: unix.MOUNT_ATTR__ATIME, Propagation: unix.MS_PRIVATE}, want: "rw,noatime"},
		{name: "strictatime", options: CloneOptions{SetAttrs: unix.MOUNT_ATTR_STRICTATIME, ClearAttrs: unix.MOUNT_ATTR__ATIME, Propagation: unix.MS_PRIVATE}, flags: unix.MS_NOATIME, want: "rw"},
		{name: "strictatime stays", options: CloneOptions{SetAttrs: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODIRATIME, Propagation: unix.MS_PRIVATE}, flags: unix.MS_STRICTATIME, want: "ro,nodiratime"},
		{name: "slave", options: CloneOptions{SetAttrs: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_SLAVE}, want: "ro,relatime master"},
		{name: "the top alone", options: CloneOptions{Recursive: true, Propagation: unix.MS_PRIVATE}, top: unix.MOUNT_ATTR_RDONLY, want: "ro,relatime", wantDown: "rw,nosuid,relatime"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, classic := range []bool{false, true} {
				dir := testmounts.Dir(t)
				testmounts.Mkdir(t, dir+"/src")
				testmounts.Mkdir(t, dir+"/dst")
				testmounts.Check(t, unix.Mount("tmpfs", dir+"/src", "tmpfs", test.flags, "size=1m"))
				t.Cleanup(func() { testmounts.Check(t, unix.Unmount(dir+"/src", unix.MNT_DETACH)) })
				testmounts.Check(t, unix.Mount("", dir+"/src", "", unix.MS_SHARED, ""))
				testmounts.Mkdir(t, dir+"/src/below")
				testmounts.Check(t, unix.Mount("tmpfs", dir+"/src/below", "tmpfs", unix.MS_NOSUID, "size=1m"))
				if classic {
					withoutSetattr(t)
				}
				before := testmounts.Lines(t, dir)
				tree, err := CloneTree(-1, dir+"/src", test.options)
				testmounts.Check(t, err)
				if test.top != 0 {
					tree, err = Restrict(tree, test.top, 0)
					testmounts.Check(t, err)
				}
				if after := testmounts.Lines(t, dir); after != before {
					t.Errorf("classic %v: mounts changed to\n%s", classic, after)
				}
				testmounts.Attach(t, tree, dir+"/dst")
				got := flagsBelow(t, dir+"/dst")
				if got[dir+"/dst"] != test.want || got[dir+"/dst/below"] != test.wantDown {
					t.Errorf("classic %v: flags %q", classic, got)
				}
			}
		})
	}
}

// TestCloneFileWithoutSetattr: a single file is no other case.
func TestCloneFileWithoutSetattr(t *testing.T) {
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	testmounts.Write(t, dir+"/src", "x")
	testmounts.Write(t, dir+"/dst", "")
	withoutSetattr(t)
	tree, err := CloneTree(-1, dir+"/src", CloneOptions{SetAttrs: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOEXEC, Propagation: unix.MS_PRIVATE, Recursive: true})
	testmounts.Check(t, err)
	testmounts.Attach(t, tree, dir+"/dst")
	// That of access times is the machine's.
	if got := flagsBelow(t, dir+"/dst")[dir+"/dst"]; !strings.HasPrefix(got, "ro,noexec,") {
		t.Errorf("flags %q", got)
	}
	if text, err := os.ReadFile(dir + "/dst"); err != nil || string(text) != "x" {
		t.Errorf("file is %q, %v", text, err)
	}
}

func flagsBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	testmounts.Check(t, err)
	out := map[string]string{}
	for _, m := range mounts {
		out[m.Mountpoint] = m.Options
		if kind, _, _ := strings.Cut(m.Optional, ":"); kind != "" {
			out[m.Mountpoint] += " " + kind
		}
	}
	return out
}

// TestNoMappingWithoutSetattr: a kernel that cannot map anything is like a file
// system that cannot be mapped, which callers know what to do with.
func TestNoMappingWithoutSetattr(t *testing.T) {
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	testmounts.Mkdir(t, dir+"/src")
	ns := testmounts.Userns(t, idmap.Contiguous(300000, 65536))
	withoutSetattr(t)
	_, err := CloneTree(-1, dir+"/src", CloneOptions{Userns: ns, SetAttrs: unix.MOUNT_ATTR_RDONLY})
	if !errors.Is(err, ErrNotIDMappable) || !strings.Contains(err.Error(), "cannot be id-mapped by kernel") {
		t.Errorf("clone: %v", err)
	}
	tree, unmapped, err := ClonePartial(-1, dir+"/src", CloneOptions{Userns: ns, SetAttrs: unix.MOUNT_ATTR_RDONLY, Recursive: true})
	testmounts.Check(t, err)
	defer testmounts.Close(t, tree)
	if len(unmapped) != 1 || !errors.Is(unmapped[0].Err, ErrNotIDMappable) {
		t.Errorf("unmapped: %+v", unmapped)
	}
	if err := os.WriteFile(procPath(tree)+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a read-only clone: %v", err)
	}
}
