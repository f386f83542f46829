// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/testmounts"
)

// helperEnv makes the process one run that is killed at a checkpoint.
const helperEnv = "ISOLATE_TEST_CHOWN_KILL"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		os.Exit(helper(os.Args[1:]))
	}
	os.Exit(testmounts.Run(m))
}

// helper shifts args[1], the snapshot args[0], to the range that starts at
// args[2], and kills itself at checkpoint args[3].
func helper(args []string) int {
	first, err := strconv.ParseUint(args[2], 10, 32)
	if err != nil {
		return 2
	}
	left, err := strconv.Atoi(args[3])
	if err != nil {
		return 2
	}
	checkpoint = func() {
		if left--; left < 0 {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	if _, err := moveTo(context.Background(), NewStore(args[4]), args[0], args[1], uint32(first)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// moveTo is one start of a container with the range that begins at first, or
// without one if that is 0.
func moveTo(ctx context.Context, s Store, dir, root string, first uint32) (Report, error) {
	tree, err := os.Open(root)
	if err != nil {
		return Report{}, err
	}
	defer tree.Close()
	to := spanAt(first)
	n, err := s.Acquire(ctx, dir, "default/a", to, func(string) bool { return false })
	if err != nil {
		return Report{}, err
	}
	var r Report
	if first == 0 {
		r, err = n.Restore(ctx, tree, Options{})
	} else {
		r, err = n.Shift(ctx, tree, to, Options{})
	}
	return r, errors.Join(err, n.Close())
}

// sandbox is a snapshot to work on: dir is what its state is of, root where its
// files are.
type sandbox struct {
	dir, root string
	store     Store
}

// kinds are the file systems that snapshots are on, each with what makes one from
// a directory with files.
var kinds = []struct {
	name string
	// mount makes root show what is in files, with changes to that in dir.
	mount func(t *testing.T, files, work string) (dir, root string)
}{
	{"directory", func(_ *testing.T, files, _ string) (dir, root string) { return files, files }},
	{"overlay", func(t *testing.T, files, work string) (dir, root string) { return overlay(t, files, work, "index=off") }},
	{"overlay with index", func(t *testing.T, files, work string) (dir, root string) { return overlay(t, files, work, "index=on") }},
	{"overlay with metacopy", func(t *testing.T, files, work string) (dir, root string) {
		return overlay(t, files, work, "index=off,metacopy=on")
	}},
}

func overlay(t *testing.T, lower, work, options string) (dir, root string) {
	t.Helper()
	for _, d := range []string{"upper", "work", "merged"} {
		must(t, os.Mkdir(filepath.Join(work, d), 0o755))
	}
	dir, root = filepath.Join(work, "upper"), filepath.Join(work, "merged")
	mount(t, "overlay", root, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s/work,%s", lower, dir, work, options))
	return dir, root
}

func mount(t *testing.T, kind, target, options string) {
	t.Helper()
	must(t, unix.Mount(kind, target, kind, 0, options))
	t.Cleanup(func() { must(t, unix.Unmount(target, unix.MNT_DETACH)) })
}

// workDir is a directory on a disk.
func workDir(t *testing.T) string {
	t.Helper()
	requireRoot(t)
	base := os.TempDir()
	var st unix.Statfs_t
	must(t, unix.Statfs(base, &st))
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		base = "/var/tmp"
	}
	dir, err := os.MkdirTemp(base, "isolate-chown-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// memoryDir is a directory in memory, where syncing costs nothing, if that takes
// all kinds of attributes (tmpfs since Linux 6.6), else on a disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir := workDir(t)
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m,mode=755"))
	if err := unix.Setxattr(dir, "user.note", []byte("x"), 0); err != nil {
		must(t, unix.Unmount(dir, 0))
		return dir
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

func requireRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
