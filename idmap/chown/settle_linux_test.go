// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	linuxmount "github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/userns"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

// running is an overlay of a container, as the host sees it.
type running struct {
	upper, root string
	ids         idmap.Span
	store       Store
	tree        *os.File
}

// runOn mounts a container's overlay, with so many ids. It has a file and a directory of
// an image.
func runOn(t *testing.T, size uint32) *running {
	t.Helper()
	dir := workDir(t)
	testmounts.RequireFeature(t, rootfs.OverlayBy(rootfs.MethodPrivate, dir))
	r := &running{upper: dir + "/upper", root: dir + "/merged", ids: idmap.Span{First: 1 << 24, Size: size}, store: NewStore(dir + "/states")}
	for _, d := range []string{r.upper, r.root, dir + "/work", dir + "/lower", dir + "/lower/tmp"} {
		must(t, os.Mkdir(d, 0o755))
	}
	must(t, os.WriteFile(dir+"/lower/image", nil, 0o644))
	ids, ok := idmap.Contiguous(r.ids.First, size).WithHost()
	if !ok {
		t.Fatal("no place for the host's ids")
	}
	ns, err := userns.New(ids)
	must(t, err)
	defer ns.Close()
	o := rootfs.Overlay{Lower: []string{dir + "/lower"}, Upper: r.upper, Work: dir + "/work"}
	must(t, Unsettle(r.upper))
	built, err := o.Build(ns, idmap.Owner{UID: r.ids.First, GID: r.ids.First}, rootfs.MethodAuto)
	must(t, err)
	must(t, linuxmount.Attach(built, -1, r.root))
	must(t, built.Close())
	r.tree, err = os.OpenFile(r.root, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	t.Cleanup(func() { r.end(t) })
	return r
}

// end unmounts it.
func (r *running) end(t *testing.T) {
	t.Helper()
	if r.tree != nil {
		must(t, errors.Join(r.tree.Close(), unix.Unmount(r.root, 0)))
		r.tree = nil
	}
}

// copyIn does what a client of dockerd does, and what the container does beside.
func (r *running) copyIn(t *testing.T) {
	t.Helper()
	first := int(r.ids.First)
	in := r.root + "/tmp/in"
	must(t, errors.Join(os.Mkdir(in, 0o755), os.WriteFile(in+"/file", nil, 0o644), os.Chown(in+"/file", 1000, 33), os.Link(in+"/file", in+"/link"),
		os.WriteFile(in+"/setuid", nil, 0o755), os.Chown(in+"/setuid", 7, 8), unix.Chmod(in+"/setuid", 0o6755),
		os.WriteFile(in+"/capable", nil, 0o755), unix.Setxattr(in+"/capable", xattrCapability, capability{Effective: true, Permitted: 1 << 13}.Bytes(), 0),
		os.WriteFile(in+"/acl", nil, 0o644), unix.Setxattr(in+"/acl", xattrAccess, encodeACL([]aclEntry{{1, 6, 0}, {aclUser, 4, 1000}, {4, 4, 0}, {0x10, 4, 0}, {0x20, 4, 0}}), 0),
		os.Symlink("file", in+"/symlink"), unix.Mkfifo(in+"/fifo", 0o600), os.Mkdir(in+"/dir", 0o755), unix.Chmod(in+"/dir", 0o2775),
		os.Chown(r.root+"/image", 5, 6),
		os.WriteFile(r.root+"/own", nil, 0o755), os.Chown(r.root+"/own", first+1000, first+33), unix.Chmod(r.root+"/own", 0o4755)))
}

// wantCopied is what copyIn leaves, where the container's first id is 0.
const wantCopied = `image 5:6 644
own 1000:33 4755
tmp 0:0 755
tmp/in 0:0 755
tmp/in/acl 0:0 644 user 1000
tmp/in/capable 0:0 755 capable 0
tmp/in/dir 0:0 2775
tmp/in/fifo 0:0 600
tmp/in/file 1000:33 644
tmp/in/link 1000:33 644
tmp/in/setuid 7:8 6755
tmp/in/symlink 0:0 777`

// list describes a tree, with ids from first on.
func list(t *testing.T, root string, first idmap.HostID) string {
	t.Helper()
	var lines []string
	must(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		name, _ := filepath.Rel(root, path)
		line := fmt.Sprintf("%s %d:%d %o", name, st.Uid-uint32(first), st.Gid-uint32(first), st.Mode&modePerm)
		if st.Mode&modeType == modeRegular {
			value, err := getxattr(path, xattrCapability)
			must(t, err)
			if c, err := parseCapability(value); err == nil {
				line += fmt.Sprintf(" capable %d", c.Root-uint32(first))
			}
			value, err = getxattr(path, xattrAccess)
			must(t, err)
			if acl, err := parseACL(value); err == nil {
				for _, e := range acl {
					if e.named() {
						line += fmt.Sprintf(" user %d", e.ID-uint32(first))
					}
				}
			}
		}
		lines = append(lines, line)
		return nil
	}))
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func wantList(t *testing.T, what, root string, first idmap.HostID) {
	t.Helper()
	if got := list(t, root, first); got != wantCopied {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, wantCopied)
	}
}

func links(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return uint64(st.Nlink) //nolint:unconvert // the type differs between architectures
}

func TestSettleRunning(t *testing.T) {
	r := runOn(t, 65536)
	r.copyIn(t)
	report, err := r.store.SettleRunning(t.Context(), r.upper, r.tree, r.ids)
	if err != nil || report.Left.N != 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	wantList(t, "while the container runs", r.root, r.ids.First)
	r.end(t)
	wantList(t, "on disk", r.upper, 0)
	if links(t, r.upper+"/tmp/in/file") != 2 {
		t.Error("a hard link is none any more")
	}
	if report, err := r.store.Settle(t.Context(), r.upper); err != nil || report.Moved != 0 || report.Inodes == 0 {
		t.Errorf("the mark was not believed, or something was left: %+v, %v", report, err)
	}
}

// TestSettle: nobody was there while the container ran.
func TestSettle(t *testing.T) {
	r := runOn(t, 65536)
	r.copyIn(t)
	r.end(t)
	if _, err := r.store.Settle(t.Context(), r.upper); err != nil {
		t.Fatal(err)
	}
	wantList(t, "on disk", r.upper, 0)
	if links(t, r.upper+"/tmp/in/file") != 2 {
		t.Error("a hard link is none any more")
	}
	must(t, os.Lchown(r.upper+"/image", int(idmap.HostOnDisk.First), 0))
	if report, err := r.store.Settle(t.Context(), r.upper); err != nil || report.Inodes != 0 {
		t.Errorf("a layer without mark was looked at: %+v, %v", report, err)
	}
}

// TestSettleKilledAnywhere: the shim is killed before each of its steps. Nothing is lost:
// neither set-id bits nor capabilities.
func TestSettleKilledAnywhere(t *testing.T) {
	defer func(before func()) { checkpoint = before }(checkpoint)
	for at := 0; ; at++ {
		r := runOn(t, 65536)
		r.copyIn(t)
		left := at
		checkpoint = func() {
			if left--; left < 0 {
				panic("killed")
			}
		}
		_, killed := r.store.SettleRunning(t.Context(), r.upper, r.tree, r.ids)
		checkpoint = func() {}
		r.end(t)
		if _, err := r.store.Settle(t.Context(), r.upper); err != nil {
			t.Fatal(err)
		}
		wantList(t, fmt.Sprintf("killed before step %d", at), r.upper, 0)
		if killed == nil {
			if at < 5 {
				t.Errorf("%d steps", at)
			}
			return
		}
	}
}

// TestSettleTaken: what a file is called in a journal may be another file when that is
// read, which the container has made.
func TestSettleTaken(t *testing.T) {
	defer func(before func()) { checkpoint = before }(checkpoint)
	r := runOn(t, 65536)
	r.copyIn(t)
	checkpoint = func() { panic("killed") }
	if _, err := r.store.SettleRunning(t.Context(), r.upper, r.tree, r.ids); err == nil {
		t.Fatal("not killed")
	}
	checkpoint = func() {}
	mine := r.root + "/tmp/in/setuid"
	must(t, errors.Join(os.Remove(mine), os.WriteFile(mine, []byte("mine"), 0o755), os.Chown(mine, int(r.ids.First)+1000, int(r.ids.First)+1000)))
	r.end(t)
	if _, err := r.store.Settle(t.Context(), r.upper); err != nil {
		t.Fatal(err)
	}
	if got := list(t, r.upper, 0); !strings.Contains(got, "tmp/in/setuid 1000:1000 755\n") {
		t.Errorf("another file got the owner and the bits:\n%s", got)
	}
}

// TestSettleBeyond: an owner that the container has no id for is one on disk.
func TestSettleBeyond(t *testing.T) {
	r := runOn(t, 1000)
	must(t, errors.Join(os.WriteFile(r.root+"/file", nil, 0o644), os.Chown(r.root+"/file", 2000, 5)))
	report, err := r.store.SettleRunning(t.Context(), r.upper, r.tree, r.ids)
	if err != nil || report.Left.N != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	r.end(t)
	if _, err := r.store.Settle(t.Context(), r.upper); err != nil {
		t.Fatal(err)
	}
	if got := list(t, r.upper, 0); got != "file 2000:5 644" {
		t.Errorf("on disk: %s", got)
	}
}
