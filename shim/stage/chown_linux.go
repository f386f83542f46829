// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/containerd/api/types"
	ctrdmount "github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/spec"
)

// snapshot is the directory with the files that belong to one rootfs alone.
type snapshot struct {
	dir   string   // its directory: an overlay's upper layer, or the rootfs itself
	lower []string // the layers below it, which others may use too
}

// snapshotOf finds the directory whose files may be changed. A shared directory may
// not: every container of the image would see the chown of a layer.
func snapshotOf(mounts []*types.Mount, dir string) (snapshot, error) {
	fail := func(why string) (snapshot, error) {
		return snapshot{}, fmt.Errorf("ids of the rootfs cannot be moved on disk: %s: %w", why, spec.ErrRefused)
	}
	var o rootfs.Overlay
	var err error
	switch {
	case len(mounts) == 0:
		var found bool
		if o, found, err = overlayAt(dir); err == nil && !found {
			return snapshot{dir: dir}, nil
		}
		if err == nil && (o.Upper != "" && !isDir(o.Upper)) {
			// mountinfo shows layers as they were given, which may be relative to
			// a directory that nobody knows any more. The mount point lasts too.
			return snapshot{dir: dir}, nil
		}
	case len(mounts) == 1 && mounts[0].Type == "overlay":
		o, err = rootfs.ParseOverlay(mounts[0].Options)
	case len(mounts) == 1 && isBind(mounts[0]):
		if slices.Contains(mounts[0].Options, "ro") {
			return fail("it is a read-only view of a layer")
		}
		return snapshot{dir: mounts[0].Source}, nil
	default:
		return fail(fmt.Sprintf("it is neither an overlay nor a directory but %s", mounts[len(mounts)-1].Type))
	}
	switch {
	case err != nil:
		return snapshot{}, fmt.Errorf("rootfs: %w", err)
	case o.Upper == "" || o.ReadOnly:
		return fail("it is an overlay without a layer to write to")
	}
	return snapshot{dir: o.Upper, lower: append(slices.Clone(o.Lower), o.DataLower...)}, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir() && filepath.IsAbs(path)
}

// overlayAt describes the overlay that is mounted at a directory, if one is.
func overlayAt(dir string) (o rootfs.Overlay, found bool, err error) {
	h, err := findOverlay(dir)
	if h == nil || err != nil {
		return o, false, err
	}
	return h.Overlay.Relative(h.Dir), true, nil
}

// hasMoved tells whether the ids of a rootfs were moved on disk.
func hasMoved(store chown.Store, mounts []*types.Mount, dir string) (bool, error) {
	sn, err := snapshotOf(mounts, dir)
	if err != nil {
		return false, nil //nolint:nilerr // nobody can have moved them
	}
	_, moved, err := store.Recorded(sn.dir)
	return moved, err
}

// Preferred returns where the ids of a rootfs were moved to, so that with that
// range nothing has to be done; 0 for nowhere.
func Preferred(store chown.Store, mounts []*types.Mount, dir string) idmap.HostID {
	sn, err := snapshotOf(mounts, dir)
	if err != nil {
		return 0 // Rootfs reports it
	}
	st, moved, err := store.Recorded(sn.dir)
	if !moved || err != nil {
		return 0
	}
	return st.Target().First
}

// chowned mounts a rootfs without mappings and moves the ids on disk.
func (s *Stage) chowned(ctx context.Context, mounts []*types.Mount, dir, target string, m idmap.Mapping, o RootfsOptions) (_ *chown.Snapshot, retErr error) {
	owner, ok := m.Root()
	if !ok || owner.UID != owner.GID || !m.Equal(idmap.Contiguous(owner.UID, m.UIDs[0].Size)) {
		return nil, fmt.Errorf("ids of the rootfs cannot be moved on disk to the ids %v, which are not one range: %w", m, spec.ErrRefused)
	}
	to := idmap.Span{First: owner.UID, Size: m.UIDs[0].Size}
	sn, err := snapshotOf(mounts, dir)
	if err != nil {
		return nil, err
	}
	var opts chown.Options
	for _, layer := range sn.lower {
		if !isDir(layer) {
			continue
		}
		st, moved, err := o.Store.Recorded(layer)
		if err != nil {
			return nil, err
		}
		if moved {
			opts.Also = append(opts.Also, st.Spans...)
		}
	}
	held, err := o.Store.Acquire(ctx, sn.dir, o.Owner, to, o.Alive)
	if err != nil {
		return nil, refuseBusy(err)
	}
	tree, err := s.plainRootfs(ctx, mounts, dir, target, o)
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	report, err := attended(ctx, held, tree, opts, func(opts chown.Options) (chown.Report, error) {
		return held.Shift(ctx, tree, to, opts)
	})
	if err != nil {
		return nil, errors.Join(err, unmount(target))
	}
	o.Warn(report.Warnings(to)...)
	if report.Inodes > 0 {
		log.G(ctx).WithField("rootfs", sn.dir).Infof("isolate: ids on disk: %v", report)
	}
	s.moved = true
	return held, nil
}

// restore moves the ids of a rootfs back to where the image has them.
func (s *Stage) restore(ctx context.Context, mounts []*types.Mount, dir, target string, o RootfsOptions) error {
	sn, err := snapshotOf(mounts, dir)
	if err != nil {
		return err
	}
	held, err := o.Store.Acquire(ctx, sn.dir, o.Owner, idmap.Span{}, o.Alive)
	if err != nil {
		return refuseBusy(err)
	}
	tree, err := s.plainRootfs(ctx, mounts, dir, target, o)
	if err != nil {
		return errors.Join(err, held.Close())
	}
	report, err := attended(ctx, held, tree, chown.Options{}, func(opts chown.Options) (chown.Report, error) {
		return held.Restore(ctx, tree, opts)
	})
	if err != nil {
		return errors.Join(err, unmount(target))
	}
	log.G(ctx).WithField("rootfs", sn.dir).Infof("isolate: ids on disk are the image's again: %v", report)
	return errors.Join(unmount(target), held.Close())
}

func refuseBusy(err error) error {
	if errors.Is(err, chown.ErrBusy) {
		return fmt.Errorf("%w: %w", err, spec.ErrRefused)
	}
	return err
}

// stuckAfter is how long a run may take to notice that nobody waits for it.
const stuckAfter = 10 * time.Second

// attended waits for a run over a tree and closes the tree. A file system that
// does not answer, such as a dead network one, holds up the run and not the
// request: then both are left behind.
func attended(ctx context.Context, held *chown.Snapshot, tree *os.File, opts chown.Options, run func(chown.Options) (chown.Report, error)) (chown.Report, error) {
	opts.Progress = func(r chown.Report) { log.G(ctx).Infof("isolate: moving ids on disk: %v so far", r) }
	type result struct {
		report chown.Report
		err    error
	}
	done := make(chan result, 1)
	go func() {
		report, err := run(opts)
		err = errors.Join(err, tree.Close())
		if err != nil {
			err = errors.Join(err, held.Close())
		}
		done <- result{report, err}
	}()
	select {
	case r := <-done:
		return r.report, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.report, r.err
	case <-time.After(stuckAfter):
		go func() { // it may come to its end after all
			if r := <-done; r.err == nil {
				held.Close() //nolint:errcheck // nobody is left to tell
			}
		}()
		return chown.Report{}, fmt.Errorf("move ids of the rootfs: its file system does not answer: %w", context.Cause(ctx))
	}
}

// plainRootfs mounts a rootfs at target without mappings and returns what is to be
// walked: the overlay, or the one mount that a directory is on.
func (s *Stage) plainRootfs(ctx context.Context, mounts []*types.Mount, dir, target string, o RootfsOptions) (_ *os.File, retErr error) {
	if len(mounts) == 1 && mounts[0].Type == "overlay" {
		all := plain(mounts)
		if o.NoDev {
			all[0].Options = append(slices.Clone(all[0].Options), "nodev")
		}
		if err := ctrdmount.All(all, target); err != nil {
			return nil, fmt.Errorf("mount rootfs: %w", err)
		}
		defer func() {
			if retErr != nil {
				retErr = errors.Join(retErr, unmount(target))
			}
		}()
		var st unix.Statfs_t
		if err := unix.Statfs(target, &st); err != nil {
			return nil, &os.PathError{Op: "statfs", Path: target, Err: err}
		}
		if st.Flags&unix.ST_RDONLY != 0 {
			return nil, fmt.Errorf("mount rootfs: %w; the kernel log tells why", rootfs.ErrReadOnly)
		}
		return os.OpenFile(target, unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	var options []string
	if len(mounts) == 1 {
		dir, options = mounts[0].Source, mounts[0].Options
	}
	all, err := s.bindRootfs(ctx, nil, dir, options, o.attrs())
	if err != nil {
		return nil, err
	}
	defer all.Close()
	if err := s.kernel.Attach(all, target); err != nil {
		return nil, err
	}
	// Without what is mounted below, which is not the snapshot's.
	tree, err := s.kernel.CloneTree(-1, dir, mount.CloneOptions{})
	if err != nil {
		return nil, errors.Join(err, unmount(target))
	}
	return tree, nil
}

// unmount removes a mount of ours at once: no second overlay may be made of the
// same layers before. What still uses it gets it lazily.
func unmount(target string) error {
	err := record.Unmount(target, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = record.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if err != nil {
		return &os.PathError{Op: "unmount", Path: target, Err: err}
	}
	return nil
}
