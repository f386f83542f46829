// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/spec"
)

// TestReachable looks at directories of callers only, not at a snapshotter's layers.
func TestReachable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bind := func(source string) []*types.Mount {
		return []*types.Mount{{Type: "bind", Source: source, Options: []string{"rbind"}}}
	}
	for _, c := range []struct {
		name   string
		mounts []*types.Mount
		dir    string
		there  bool
	}{
		{"directory", nil, dir, true},
		{"no directory", nil, dir + "/absent", false},
		{"bind", bind(dir), dir + "/absent", true},
		{"bind of nothing", bind(dir + "/absent"), dir, false},
		{"overlay", []*types.Mount{{Type: "overlay"}}, dir + "/absent", true},
	} {
		if err := Reachable(t.Context(), rootfs.Parse(c.mounts, c.dir)); (err == nil) != c.there {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if got := mountedAt("/proc/self"); !strings.Contains(got, `proc at "/proc"`) {
		t.Errorf("/proc/self is on %s", got)
	}
}

// TestBounded: who waits for a file system that does not answer is let go, and what
// comes too late is closed.
func TestBounded(t *testing.T) {
	t.Parallel()
	f, err := bounded(t.Context(), "/d", func() (*os.File, error) { return os.Open("/dev/null") })
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := reader.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = bounded(ctx, "/d", func() (*os.File, error) { <-answer; return writer, nil })
	if err == nil || !strings.Contains(err.Error(), `source "/d": its file system does not answer`) {
		t.Errorf("got %v", err)
	}
	if same := explain(unix.EIO, reader); same != unix.EIO { //nolint:errorlint // it itself
		t.Errorf("of another error it made %v", same)
	}
	close(answer)
	if n, err := reader.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) { // once nobody has the other end
		t.Errorf("%d, %v", n, err)
	}
}

// TestHolders finds those that a look-up of mounts below a directory may wait for.
func TestHolders(t *testing.T) {
	t.Parallel()
	mounts := []*mountinfo.Info{
		{ID: 1, Mountpoint: "/", FSType: "nfs"},
		{ID: 2, Parent: 1, Mountpoint: "/d/nfs", FSType: "nfs4"},
		{ID: 3, Parent: 2, Mountpoint: "/d/nfs/in", FSType: "tmpfs"},
		{ID: 4, Parent: 1, Mountpoint: "/d/alone", FSType: "fuse.sshfs"},
		{ID: 5, Parent: 1, Mountpoint: "/d/overlay", FSType: "overlay"},
		{ID: 6, Parent: 5, Mountpoint: "/d/overlay/proc", FSType: "proc"},
		{ID: 7, Parent: 1, Mountpoint: "/dd", FSType: "fuse"},
		{ID: 8, Parent: 7, Mountpoint: "/dd/in", FSType: "tmpfs"},
	}
	for dir, want := range map[string][]string{
		"/d":       {`nfs4 at "/d/nfs"`},
		"/dd":      {`fuse at "/dd"`},
		"/d/alone": nil,
		"/":        {`nfs at "/"`, `nfs4 at "/d/nfs"`, `fuse at "/dd"`},
	} {
		if got := holders(mounts, dir); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
}

// TestAttended waits for a run over a tree, closes the tree, and lets go of the
// snapshot if the run fails.
func TestAttended(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := chown.NewStore(dir + "/states")
	for _, fails := range []error{nil, unix.EIO} {
		held, err := store.Acquire(t.Context(), dir, "ns/a", idmap.Span{First: 200000, Size: 65536}, nil)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		report, err := attended(t.Context(), held, tree, chown.Options{}, func(o chown.Options) (chown.Report, error) {
			o.Progress(chown.Report{Inodes: 3})
			return chown.Report{Inodes: 7}, fails
		})
		if !errors.Is(err, fails) || report.Inodes != 7 {
			t.Errorf("%v, %v", report, err)
		}
		if tree.Close() == nil {
			t.Error("the tree was not closed")
		}
		if fails == nil {
			if err := held.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := refuseBusy(&chown.BusyError{Path: dir}); !errors.Is(err, spec.ErrRefused) {
		t.Errorf("busy: %v", err)
	}
	if err := refuseBusy(unix.EIO); errors.Is(err, spec.ErrRefused) || !errors.Is(err, unix.EIO) {
		t.Errorf("other: %v", err)
	}
}
