// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/feature"
	"github.com/isolate-shim/isolate/internal/linux/thread"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

func TestCloneTree(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	testmounts.RequireFeature(t, MappableAt(testmounts.Dir(t)))
	dir := testmounts.Dir(t)
	src, dst := dir+"/src", dir+"/dst"
	testmounts.Write(t, src+"/file", "x")
	testmounts.Mkdir(t, dst)
	if err := os.Chown(src+"/file", 1000, 2000); err != nil {
		t.Fatal(err)
	}
	before := testmounts.Lines(t, dir)
	ns := testmounts.Userns(t, idmap.Contiguous(300000, 65536))
	tree, err := CloneTree(-1, src, CloneOptions{Userns: ns, Propagation: unix.MS_PRIVATE})
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(tree.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v: not closed on exec", flags, err)
	}
	if !strings.Contains(tree.Name(), src) {
		t.Errorf("name %q does not tell the source", tree.Name())
	}
	if after := testmounts.Lines(t, dir); after != before {
		t.Error("a detached clone appears in mountinfo")
	}
	testmounts.Attach(t, tree, dst)
	testmounts.WantOwner(t, dst, "300000:300000")
	testmounts.WantOwner(t, dst+"/file", "301000:302000")
	testmounts.WantOwner(t, src+"/file", "1000:2000")
	// What root of the mapping makes is root's on disk.
	err = thread.Run(func() error {
		if err := thread.SetFSIDs(300000, 300000); err != nil {
			return err
		}
		return os.WriteFile(dst+"/made", nil, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	testmounts.WantOwner(t, src+"/made", "0:0")

	// A single file, named relative to a directory.
	d, err := os.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer testmounts.Close(t, d)
	one, err := CloneTree(int(d.Fd()), "file", CloneOptions{Userns: ns})
	if err != nil {
		t.Fatal(err)
	}
	testmounts.Write(t, dir+"/target", "")
	testmounts.Attach(t, one, dir+"/target")
	testmounts.WantOwner(t, dir+"/target", "301000:302000")

	// The directory descriptor itself is the source.
	self, err := CloneTree(int(d.Fd()), "", CloneOptions{SetAttrs: unix.MOUNT_ATTR_RDONLY})
	if err != nil {
		t.Fatal(err)
	}
	testmounts.Mkdir(t, dir+"/ro")
	testmounts.Attach(t, self, dir+"/ro")
	if err := os.WriteFile(dir+"/ro/new", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a read-only clone: %v", err)
	}
}

func TestCloneTreeErrors(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	testmounts.RequireFeature(t, MappableAt(testmounts.Dir(t)))
	dir := testmounts.Dir(t)
	testmounts.Mount(t, "ramfs", dir+"/ramfs", "")
	testmounts.Mkdir(t, dir+"/plain")
	testmounts.Mkdir(t, dir+"/mapped")
	ns := testmounts.Userns(t, idmap.Contiguous(300000, 65536))
	tree, err := CloneTree(-1, dir+"/plain", CloneOptions{Userns: ns})
	if err != nil {
		t.Fatal(err)
	}
	testmounts.Attach(t, tree, dir+"/mapped")
	for _, tc := range []struct {
		name, path string
		opts       CloneOptions
		is         error
		not        error
		says       []string
	}{
		{
			name: "proc", path: "/proc", opts: CloneOptions{Userns: ns},
			is: ErrNotIDMappable, says: []string{`"/proc"`, "proc", feature.Release()},
		},
		{
			name: "ramfs", path: dir + "/ramfs", opts: CloneOptions{Userns: ns},
			is: ErrNotIDMappable, says: []string{"ramfs cannot be id-mapped"},
		},
		{
			name: "submount", path: dir, opts: CloneOptions{Userns: ns, Recursive: true},
			is: ErrNotIDMappable,
		},
		{
			name: "unknown attribute", path: dir + "/plain", opts: CloneOptions{Userns: ns, SetAttrs: 1 << 40},
			is: unix.EINVAL, not: ErrNotIDMappable,
		},
		{
			name: "unknown attribute without mapping", path: dir + "/plain", opts: CloneOptions{SetAttrs: 1 << 40},
			is: unix.EINVAL, not: ErrNotIDMappable,
		},
		{
			name: "missing", path: dir + "/missing", opts: CloneOptions{Userns: ns},
			is: unix.ENOENT, not: ErrNotIDMappable, says: []string{dir + "/missing"},
		},
		{
			name: "mapped already", path: dir + "/mapped", opts: CloneOptions{Userns: ns},
			is: unix.EPERM, not: ErrNotIDMappable, says: []string{"id-mapped already"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := CloneTree(-1, tc.path, tc.opts)
			if err == nil {
				testmounts.Close(t, m)
				t.Fatal("no error")
			}
			if !errors.Is(err, tc.is) || tc.not != nil && errors.Is(err, tc.not) {
				t.Errorf("error %v, want %v and not %v", err, tc.is, tc.not)
			}
			for _, says := range tc.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("%q does not say %q", err, says)
				}
			}
		})
	}
}

// TestClonePartial: of a tree with mounts that take no mapping everything else
// is mapped, and exactly those are reported.
func TestClonePartial(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	testmounts.RequireFeature(t, MappableTmpfs())
	dir := testmounts.Dir(t)
	src, dst := dir+"/src", dir+"/dst"
	testmounts.Write(t, src+"/top", "")
	testmounts.Mkdir(t, dst)
	testmounts.Mount(t, "tmpfs", src+"/sub", "")
	testmounts.Write(t, src+"/sub/file", "")
	testmounts.Mount(t, "ramfs", src+"/sub/ram", "")
	testmounts.Write(t, src+"/sub/ram/file", "")
	testmounts.Mount(t, "tmpfs", src+"/sub/ram/deep", "")
	testmounts.Write(t, src+"/sub/ram/deep/file", "")
	testmounts.Mount(t, "tmpfs", src+"/twice", "") // covered by the next one
	testmounts.Write(t, src+"/twice/below", "")
	testmounts.Mount(t, "tmpfs", src+"/twice", "")
	testmounts.Write(t, src+"/twice/above", "")
	testmounts.Mount(t, "tmpfs", dir+"/srcother", "") // shares the prefix of the name

	ns := testmounts.Userns(t, idmap.Contiguous(300000, 65536))
	before := testmounts.Lines(t, dir)
	tree, unmapped, err := ClonePartial(-1, src, CloneOptions{
		Recursive: true, Userns: ns, SetAttrs: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE,
	})
	if err != nil {
		t.Fatal(err)
	}
	if testmounts.Lines(t, dir) != before {
		t.Error("mounts of this process changed")
	}
	if len(unmapped) != 1 || unmapped[0].Mountpoint != src+"/sub/ram" || unmapped[0].FSType != "ramfs" ||
		!errors.Is(unmapped[0].Err, ErrNotIDMappable) {
		t.Errorf("unmapped: %+v", unmapped)
	}
	testmounts.Attach(t, tree, dst)
	for path, want := range map[string]string{
		"/top": "300000:300000", "/sub/file": "300000:300000", "/sub/ram/file": "0:0",
		"/sub/ram/deep/file": "300000:300000", "/twice/above": "300000:300000",
	} {
		testmounts.WantOwner(t, dst+path, want)
		if err := os.WriteFile(dst+path, nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("write to %s of a recursively read-only clone: %v", path, err)
		}
	}

	// The top itself.
	tree, unmapped, err = ClonePartial(-1, src+"/sub/ram", CloneOptions{Userns: ns})
	if err != nil || len(unmapped) != 1 || unmapped[0].FSType != "ramfs" {
		t.Fatalf("unmapped %+v, %v", unmapped, err)
	}
	testmounts.Close(t, tree)
	// Nothing to leave out.
	tree, unmapped, err = ClonePartial(-1, src+"/twice", CloneOptions{Userns: ns, Recursive: true})
	if err != nil || len(unmapped) != 0 {
		t.Fatalf("unmapped %+v, %v", unmapped, err)
	}
	testmounts.Close(t, tree)
	// A single file.
	tree, unmapped, err = ClonePartial(-1, src+"/sub/ram/file", CloneOptions{Userns: ns, Recursive: true})
	if err != nil || len(unmapped) != 1 {
		t.Fatalf("unmapped %+v, %v", unmapped, err)
	}
	testmounts.Close(t, tree)
	if _, _, err := ClonePartial(-1, src+"/missing", CloneOptions{Userns: ns}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing source: %v", err)
	}
}

// TestReadOnlyIsLocked: root of a user namespace with every capability cannot
// make a read-only clone writable again, in no way and nowhere.
func TestReadOnlyIsLocked(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	testmounts.RequireFeature(t, MappableTmpfs())
	dir := testmounts.Dir(t)
	m := idmap.Contiguous(300000, 65536)
	ns := testmounts.Userns(t, m)
	testmounts.Write(t, dir+"/src/file", "")
	testmounts.Mount(t, "tmpfs", dir+"/src/sub", "mode=0777")
	for _, name := range []string{"ro", "rw"} {
		opts := CloneOptions{Recursive: true, Userns: ns, Propagation: unix.MS_PRIVATE}
		if name == "ro" {
			opts.SetAttrs = unix.MOUNT_ATTR_RDONLY
		}
		tree, err := CloneTree(-1, dir+"/src", opts)
		if err != nil {
			t.Fatal(err)
		}
		testmounts.Mkdir(t, dir+"/"+name)
		testmounts.Attach(t, tree, dir+"/"+name)
	}
	testmounts.Mount(t, "tmpfs", dir+"/elsewhere", "mode=0777")
	testmounts.RunProgram(t, testmounts.Program(t, m, "remount", dir))
}

func remount(args []string) error {
	dir := args[0]
	for _, sub := range []string{"", "/sub"} {
		ro, rw, elsewhere := dir+"/ro"+sub, dir+"/rw"+sub, dir+"/elsewhere"
		clear := &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
		// The writable one shows that this process may do such things at all.
		if err := unix.Mount("", rw, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make %s read-only: %w", rw, err)
		}
		if err := unix.MountSetattr(unix.AT_FDCWD, rw, 0, clear); err != nil {
			return fmt.Errorf("make %s writable again: %w", rw, err)
		}
		if err := os.WriteFile(rw+"/made", nil, 0o600); err != nil {
			return err
		}
		for what, try := range map[string]func() error{
			"remount":  func() error { return unix.Mount("", ro, "", unix.MS_REMOUNT|unix.MS_BIND, "") },
			"setattr":  func() error { return unix.MountSetattr(unix.AT_FDCWD, ro, 0, clear) },
			"setattrR": func() error { return unix.MountSetattr(unix.AT_FDCWD, ro, unix.AT_RECURSIVE, clear) },
			"bind": func() error {
				if err := unix.Mount(ro, elsewhere, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
					return err
				}
				return unix.Mount("", elsewhere, "", unix.MS_REMOUNT|unix.MS_BIND, "")
			},
			"clone": func() error {
				fd, err := unix.OpenTree(unix.AT_FDCWD, ro, unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE)
				if err != nil {
					return err
				}
				return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, clear)
			},
		} {
			if err := try(); !errors.Is(err, unix.EPERM) {
				return fmt.Errorf("%s of %s gave %w", what, ro, err)
			}
		}
		if err := os.WriteFile(filepath.Join(ro, "made2"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("write to %s gave %w", ro, err)
		}
	}
	return nil
}

func TestCloneAttachedBeneath(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	testmounts.RequireFeature(t, AttachableBeneath(t.TempDir()))
	dir := testmounts.Dir(t)
	testmounts.Write(t, dir+"/root/file", "")
	testmounts.Mount(t, "tmpfs", dir+"/target", "")
	ns := testmounts.Userns(t, idmap.Contiguous(300000, 65536))
	m, err := CloneTree(-1, dir+"/root", CloneOptions{Recursive: true, Userns: ns, SetAttrs: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE})
	if err != nil {
		t.Fatal(err)
	}
	if err := attachBeneath(m, -1, dir+"/target"); err != nil {
		t.Fatal(err)
	}
	testmounts.Close(t, m)
	if _, err := os.Stat(dir + "/target/file"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mount beneath shows: %v", err)
	}
	testmounts.Detach(t, dir+"/target")
	defer testmounts.Unmount(t, dir+"/target")
	testmounts.WantOwner(t, dir+"/target/file", "300000:300000")
	if err := os.WriteFile(dir+"/target/new", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a read-only root: %v", err)
	}
}
