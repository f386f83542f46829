// SPDX-License-Identifier: Apache-2.0

package visit

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/linux/thread"
	"github.com/isolate-shim/isolate/internal/linux/userns"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

func TestMain(m *testing.M) { os.Exit(testmounts.Run(m)) }

const first = 1 << 24

// watched mounts a container's overlay and watches it.
func watched(t *testing.T) (*Watch, string) {
	t.Helper()
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	testmounts.RequireFeature(t, rootfs.OverlayBy(rootfs.MethodPrivate, dir))
	for _, d := range []string{"upper", "work", "lower", "merged"} {
		testmounts.Mkdir(t, filepath.Join(dir, d))
	}
	ids, _ := idmap.Contiguous(first, 65536).WithHost()
	ns, err := userns.New(ids)
	must(t, err)
	defer ns.Close()
	r := Rootfs{Path: dir + "/merged", Upper: dir + "/upper", IDs: idmap.Span{First: first, Size: 65536}, Store: chown.NewStore(dir + "/states")}
	must(t, chown.Unsettle(r.Upper))
	built, err := rootfs.Overlay{Lower: []string{dir + "/lower"}, Upper: r.Upper, Work: dir + "/work"}.
		Build(ns, idmap.Owner{UID: first, GID: first}, rootfs.MethodAuto)
	must(t, err)
	must(t, errors.Join(mount.Attach(built, -1, r.Path), built.Close()))
	t.Cleanup(func() { must(t, unix.Unmount(r.Path, unix.MNT_DETACH)) })
	w, err := Start(t.Context(), r)
	must(t, err)
	return w, r.Path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// visit enters a rootfs as dockerd does, and stays there for as long as fn takes.
func visit(root string, fn func() error) error {
	return thread.Run(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return err
		}
		old := filepath.Join(root, pivot+"123")
		if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""), os.Mkdir(old, 0o700)); err != nil {
			return err
		}
		time.Sleep(3 * gathering) // as one that is not scheduled
		return errors.Join(unix.PivotRoot(root, old), os.Chdir("/"), unix.Mount("", "/"+pivot+"123", "", unix.MS_PRIVATE|unix.MS_REC, ""),
			unix.Unmount("/"+pivot+"123", unix.MNT_DETACH), os.Remove("/"+pivot+"123"), fn())
	})
}

// TestVisit: what a visitor has written gets its owner when the visitor leaves.
func TestVisit(t *testing.T) {
	w, root := watched(t)
	written, leave, left := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		left <- visit(root, func() error {
			err := errors.Join(os.WriteFile("/file", nil, 0o600), os.Chown("/file", 1000, 33))
			close(written)
			<-leave
			return err
		})
	}()
	select {
	case <-written:
	case err := <-left:
		t.Fatal(err)
	}
	time.Sleep(5 * gathering)
	testmounts.WantOwner(t, root+"/file", "1000:33") // not before
	close(leave)
	must(t, <-left)
	for deadline := time.Now().Add(10 * time.Second); testmounts.Owner(root+"/file") != "16778216:16777249" && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	testmounts.WantOwner(t, root+"/file", "16778216:16777249")
	if !w.Close() {
		t.Error("not everything is settled")
	}
}

// TestNoVisit: nothing of the host was there, though the container has made directories,
// some with a name as dockerd gives them.
func TestNoVisit(t *testing.T) {
	w, root := watched(t)
	must(t, thread.WithFSIDs(first, first, func() error {
		return errors.Join(os.Mkdir(root+"/dir", 0o700), os.Mkdir(root+"/dir/"+pivot, 0o700))
	}))
	if !w.Close() {
		t.Error("a directory of the container's was taken for a visit")
	}
}

// TestVisitAtTheEnd: nobody has looked at what a visitor has left.
func TestVisitAtTheEnd(t *testing.T) {
	w, root := watched(t)
	must(t, w.made.Interrupt())
	<-w.ended
	must(t, visit(root, func() error { return nil }))
	if w.Close() {
		t.Error("a visit was not noticed")
	}
}
