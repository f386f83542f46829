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

// hasMoved tells whether the ids of the rootfs were moved on disk.
func (m *rootfsMount) hasMoved() (bool, error) {
	sn, err := m.source.Snapshot()
	if err != nil {
		return false, nil //nolint:nilerr // nobody can have moved them
	}
	_, moved, err := m.Store.Recorded(sn.Dir)
	return moved, err
}

// Preferred returns where the ids of a rootfs were moved to, so that with that
// range nothing has to be done; 0 for nowhere.
func Preferred(store chown.Store, source *rootfs.Source) idmap.HostID {
	sn, err := source.Snapshot()
	if err != nil {
		return 0 // Rootfs reports it
	}
	st, moved, err := store.Recorded(sn.Dir)
	if !moved || err != nil {
		return 0
	}
	return st.Target().First
}

// chowned mounts the rootfs without mappings and moves the ids on disk.
func (m *rootfsMount) chowned(ctx context.Context) (*chown.Snapshot, error) {
	owner, ok := m.ids.Root()
	if !ok || owner.UID != owner.GID || !m.ids.Equal(idmap.Contiguous(owner.UID, m.ids.UIDs[0].Size)) {
		return nil, fmt.Errorf("ids of the rootfs cannot be moved on disk to the ids %v, which are not one range: %w", m.ids, spec.ErrRefused)
	}
	to := idmap.Span{First: owner.UID, Size: m.ids.UIDs[0].Size}
	sn, err := m.source.Snapshot()
	if err != nil {
		return nil, err
	}
	var opts chown.Options
	for _, layer := range sn.Lower {
		if !isDir(layer) {
			continue
		}
		st, moved, err := m.Store.Recorded(layer)
		if err != nil {
			return nil, err
		}
		if moved {
			opts.Also = append(opts.Also, st.Spans...)
		}
	}
	held, err := m.Store.Acquire(ctx, sn.Dir, m.Owner, to, m.Alive)
	if err != nil {
		return nil, refuseBusy(err)
	}
	tree, err := m.plain(ctx)
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	report, err := attended(ctx, held, tree, opts, func(opts chown.Options) (chown.Report, error) {
		return held.Shift(ctx, tree, to, opts)
	})
	if err != nil {
		return nil, errors.Join(err, unmount(m.target))
	}
	m.Warn(report.Warnings(to)...)
	if report.Inodes > 0 {
		log.G(ctx).WithField("rootfs", sn.Dir).Infof("isolate: ids on disk: %v", report)
	}
	m.moved = true
	return held, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir() && filepath.IsAbs(path)
}

// restore moves the ids of the rootfs back to where the image has them.
func (m *rootfsMount) restore(ctx context.Context) error {
	sn, err := m.source.Snapshot()
	if err != nil {
		return err
	}
	held, err := m.Store.Acquire(ctx, sn.Dir, m.Owner, idmap.Span{}, m.Alive)
	if err != nil {
		return refuseBusy(err)
	}
	tree, err := m.plain(ctx)
	if err != nil {
		return errors.Join(err, held.Close())
	}
	report, err := attended(ctx, held, tree, chown.Options{}, func(opts chown.Options) (chown.Report, error) {
		return held.Restore(ctx, tree, opts)
	})
	if err != nil {
		return errors.Join(err, unmount(m.target))
	}
	log.G(ctx).WithField("rootfs", sn.Dir).Infof("isolate: ids on disk are the image's again: %v", report)
	return errors.Join(unmount(m.target), held.Close())
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

// plain mounts the rootfs at its target without mappings and returns what is to be
// walked: the overlay, or the one mount that a directory is on.
func (m *rootfsMount) plain(ctx context.Context) (_ *os.File, retErr error) {
	if m.source.Kind == rootfs.OverlayMount {
		all := plain(m.source)
		if m.NoDev {
			all[0].Options = append(slices.Clone(all[0].Options), "nodev")
		}
		if err := ctrdmount.All(all, m.target); err != nil {
			return nil, fmt.Errorf("mount rootfs: %w", err)
		}
		defer func() {
			if retErr != nil {
				retErr = errors.Join(retErr, unmount(m.target))
			}
		}()
		var st unix.Statfs_t
		if err := unix.Statfs(m.target, &st); err != nil {
			return nil, &os.PathError{Op: "statfs", Path: m.target, Err: err}
		}
		if st.Flags&unix.ST_RDONLY != 0 {
			return nil, fmt.Errorf("mount rootfs: %w; the kernel log tells why", rootfs.ErrReadOnly)
		}
		return os.OpenFile(m.target, unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	all, err := m.bind(ctx, nil, m.source.Dir, m.source.Options())
	if err != nil {
		return nil, err
	}
	defer all.Close()
	if err := m.kernel.Attach(all, m.target); err != nil {
		return nil, err
	}
	// Without what is mounted below, which is not the snapshot's.
	tree, err := m.kernel.CloneTree(-1, m.source.Dir, mount.CloneOptions{})
	if err != nil {
		return nil, errors.Join(err, unmount(m.target))
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
