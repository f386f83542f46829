// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/rig"
)

const (
	// chownFiles is how many files the trees have, a hundred in a directory.
	chownFiles  = 30000
	chownRounds = 3
)

// chowns measures how long it takes to move the ids of a root file system on disk:
// on a plain tree and on an overlay, beside a loop that does nothing but lchown,
// and as part of a start beside containerd's own way to do so.
func chowns(ctx context.Context) error {
	fmt.Printf("\nmoving the ids of %d files, median of %d\n", chownFiles, chownRounds)
	fmt.Printf("%-24s  %14s  %14s  %6s\n", "us an inode", "lchown loop", "isolate", "ratio")
	if err := chownTrees(ctx, "plain tree", "target: 10 us", plainTree); err != nil {
		return err
	}
	if err := chownTrees(ctx, "overlay, copy-up", "target: ratio 1", overlayTree); err != nil {
		return err
	}
	return chownStarts(ctx)
}

// chownTree is a tree to work on, and what removes it.
type chownTree struct {
	dir, root string
	close     func() error
}

// plainTree makes the files in a directory.
func plainTree(dir string) (chownTree, error) {
	t := chownTree{dir: dir, root: dir, close: func() error { return os.RemoveAll(dir) }}
	for i := range chownFiles {
		sub := filepath.Join(dir, strconv.Itoa(i/100))
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return t, fmt.Errorf("make tree: %w", err)
			}
		}
		if err := os.WriteFile(filepath.Join(sub, strconv.Itoa(i)), []byte(sub), 0o644); err != nil {
			return t, fmt.Errorf("make tree: %w", err)
		}
	}
	return t, nil
}

// overlayTree makes the files a layer below a new one.
func overlayTree(dir string) (chownTree, error) {
	t := chownTree{dir: dir + "/upper", root: dir + "/merged"}
	t.close = func() error { return errors.Join(unmount(t.root), os.RemoveAll(dir)) }
	for _, d := range []string{"upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return t, fmt.Errorf("make tree: %w", err)
		}
	}
	if _, err := plainTree(dir + "/lower"); err != nil {
		return t, err
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work,index=off", dir)
	if err := unix.Mount("overlay", t.root, "overlay", 0, options); err != nil {
		return t, fmt.Errorf("mount overlay: %w", err)
	}
	return t, nil
}

// chownTrees measures both ways on trees of one kind, in turns.
func chownTrees(ctx context.Context, name, target string, make func(dir string) (chownTree, error)) error {
	store := chown.NewStore(filepath.Join(rig.Dir(), "chown-store"))
	var loop, ours []float64
	for round := range chownRounds {
		for _, way := range []struct {
			column *[]float64
			move   func(chownTree) (int, error)
		}{{&loop, lchownLoop}, {&ours, func(t chownTree) (int, error) { return shift(ctx, store, t) }}} {
			t, err := make(filepath.Join(rig.Dir(), "chown-"+strconv.Itoa(round)))
			if err != nil {
				return err
			}
			unix.Sync() // what made the tree is not to be measured
			start := time.Now()
			inodes, err := way.move(t)
			elapsed := time.Since(start)
			if err := errors.Join(err, t.close()); err != nil {
				return err
			}
			*way.column = append(*way.column, float64(elapsed)/float64(time.Microsecond)/float64(inodes))
		}
	}
	a, b := quartilesOf(loop).median, quartilesOf(ours).median
	fmt.Printf("%-24s  %14.1f  %14.1f  %6.2f  %s\n", name, a, b, b/a, target)
	return nil
}

// lchownLoop is the least that moving ids takes.
func lchownLoop(t chownTree) (inodes int, err error) {
	err = filepath.WalkDir(t.root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inodes++
		return os.Lchown(path, int(hostRoot), int(hostRoot))
	})
	return inodes, err
}

func shift(ctx context.Context, store chown.Store, t chownTree) (int, error) {
	tree, err := os.Open(t.root)
	if err != nil {
		return 0, err
	}
	defer tree.Close()
	to := idmap.Span{First: hostRoot, Size: 65536}
	n, err := store.Acquire(ctx, t.dir, "bench/a", to, func(string) bool { return false })
	if err != nil {
		return 0, err
	}
	r, err := n.Shift(ctx, tree, to, chown.Options{})
	return r.Inodes, errors.Join(err, n.Close())
}

// chownStarts measures the first start of a container of an image with as many
// files: without user namespace, under isolate with rootfs.method = "chown", and
// with containerd's client moving the ids (ctr run --uidmap).
func chownStarts(ctx context.Context) (err error) {
	n, err := rig.StartContainerd(ctx, rig.Config{Isolate: true, LogLevel: "info"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Stop()) }()
	reference, err := n.Import(ctx, image.Many)
	if err != nil {
		return err
	}
	const text = "nesting = \"off\"\nlxcfs.mode = \"off\"\nrootfs.method = \"chown\"\n"
	if err := errors.Join(os.MkdirAll("/etc/isolate", 0o755), os.WriteFile("/etc/isolate/config.toml", []byte(text), 0o644)); err != nil {
		return fmt.Errorf("configure isolate: %w", err)
	}
	ways := []struct {
		name string
		args func(round int) []string
	}{
		{"plain", func(int) []string { return []string{"--runtime", upstream} }},
		{"containerd's remap", func(round int) []string {
			// It keeps what it has made for a range.
			ids := fmt.Sprintf("0:%d:65536", idmap.HostID(100000+65536*round))
			return []string{"--runtime", upstream, "--uidmap", ids, "--gidmap", ids}
		}},
		{"isolate", func(int) []string { return []string{"--runtime", isolate} }},
	}
	columns := make([][]float64, len(ways))
	before, err := snapshots(n)
	if err != nil {
		return err
	}
	for round := range chownRounds {
		order := []int{0, 1, 2}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, i := range order {
			way := ways[i]
			// What the one before has copied is removed first.
			if err := settle(n, before); err != nil {
				return err
			}
			start := time.Now()
			args := append([]string{"run", "--rm"}, way.args(round)...)
			if err := n.Ctr(ctx, append(args, reference, "bench", "true")...).Err(); err != nil {
				return err
			}
			columns[i] = append(columns[i], time.Since(start).Seconds())
		}
	}
	if err := settle(n, before); err != nil {
		return err
	}
	plain := quartilesOf(columns[0]).median
	remap, ours := quartilesOf(columns[1]).median, quartilesOf(columns[2]).median
	fmt.Printf("\nfirst start of an image with %d files, median of %d, seconds\n", chownFiles, chownRounds)
	fmt.Printf("plain %.2f, containerd's remap %.2f, isolate %.2f; isolate's share beside containerd's: %.2f\n",
		plain, remap, ours, (ours-plain)/(remap-plain))
	return nil
}

// snapshots counts the snapshots on disk.
func snapshots(n *rig.Node) (int, error) {
	entries, err := os.ReadDir(filepath.Join(n.Root, "io.containerd.snapshotter.v1.overlayfs/snapshots"))
	return len(entries), err
}

// settle waits until containerd has removed what is not used any more, and until
// everything is on disk.
func settle(n *rig.Node, want int) error {
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		have, err := snapshots(n)
		if err != nil {
			return err
		}
		if have <= want {
			unix.Sync()
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d snapshots are left, of %d at first", have, want)
		}
	}
}
