// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
	"github.com/isolate-shim/isolate/internal/linux/thread"
)

// xattrUnsettled marks an upper layer whose files may have owners of
// [idmap.HostOnDisk]. Names that begin so are the overlay's own: it shows them to
// nobody. An image that brings the mark along costs its containers one walk.
const xattrUnsettled = "trusted.overlay.isolate.unsettled"

// Unsettle marks an upper layer, before the host's ids get a place on it.
func Unsettle(upper string) error {
	if err := unix.Setxattr(upper, xattrUnsettled, []byte("y"), 0); err != nil {
		return fmt.Errorf("mark upper layer %q: %w", upper, os.NewSyscallError("setxattr", err))
	}
	return nil
}

// Settled takes the mark away.
func Settled(upper string) error {
	err := unix.Removexattr(upper, xattrUnsettled)
	if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("take mark from upper layer %q: %w", upper, os.NewSyscallError("removexattr", err))
	}
	return nil
}

// unsettled tells whether an upper layer has the mark.
func unsettled(upper string) (bool, error) {
	_, err := unix.Getxattr(upper, xattrUnsettled, nil)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for mark of upper layer %q: %w", upper, os.NewSyscallError("getxattr", err))
	}
	return true, nil
}

// onDisk brings what the host's programs have written to where it is if they write
// while no container runs.
var onDisk = shift{From: []idmap.Span{idmap.HostOnDisk}, To: idmap.Span{Size: uint32(idmap.HostOnDisk.First)}}

// Settle gives what the host's programs have written into an upper layer, while a
// container ran on it, the owners that they have named, if the layer has the mark, and
// takes that away. Nothing may have the layer mounted. An interrupted call is finished by
// another one, or by that after a [Store.SettleRunning] that was.
func (s Store) Settle(ctx context.Context, upper string) (Report, error) {
	marked, err := unsettled(upper)
	if !marked || err != nil {
		return Report{}, err
	}
	r, layer, err := s.settling(upper)
	if err != nil {
		return Report{}, err
	}
	defer layer.Close()
	if err := r.do(ctx, layer); err != nil {
		return r.report, fmt.Errorf("settle owners in upper layer %q: %w", upper, err)
	}
	return r.report, Settled(upper)
}

// settling prepares a run over an upper layer.
func (s Store) settling(upper string) (*run, *os.File, error) {
	id, err := identify(upper)
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("create directory of states: %w", err)
	}
	layer, err := os.OpenFile(id.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open upper layer: %w", err)
	}
	// Another directory of this name has another journal.
	journal := s.base(id.path+" "+strconv.FormatUint(id.inode, 10)+" "+strconv.FormatInt(id.birth, 10)) + journalSuffix
	return &run{shift: onDisk, journal: journal, started: time.Now(), wary: true}, layer, nil
}

// SettleRunning is Settle while the container runs: tree is its overlay as the host sees
// it, and ids are its host ids. The layer keeps its mark. The report's Left are files that
// only Settle can help, since their owners are beyond the container's ids.
//
// The files are found in the layer, which is smaller than what is merged with it, and
// changed through the overlay, which would go on to show the old owners otherwise. The
// container may change everything meanwhile. But it can make no file with an id of the
// host, so what has one when it is changed was written by the host, whatever its name is.
func (s Store) SettleRunning(ctx context.Context, upper string, tree *os.File, ids idmap.Span) (Report, error) {
	r, layer, err := s.settling(upper)
	if err != nil {
		return Report{}, err
	}
	defer layer.Close()
	r.running = true
	if err := r.settleRunning(ctx, layer, tree, shift{From: []idmap.Span{idmap.HostIDs}, To: ids}); err != nil {
		return r.report, fmt.Errorf("settle owners in %q: %w", upper, err)
	}
	return r.report, nil
}

func (r *run) settleRunning(ctx context.Context, layer, tree *os.File, view shift) error {
	r.ctx, r.left, r.said = ctx, map[idmap.Span]bool{}, r.started
	return thread.WithFSIDs(0, 0, func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		w := &walker{run: r, links: map[link]int{}}
		if err := w.walk(layer); err != nil {
			return err
		}
		// Should this process be killed half way, Settle must know what is to be restored.
		fragile := slices.DeleteFunc(slices.Clone(w.entries), func(e entry) bool { return r.shift.inode(e.attributes).plain() })
		if len(fragile) > 0 {
			data, err := encodeJournal(fragile)
			if err != nil {
				return err
			}
			if err := atomicfile.WriteDurably(r.journal, data, 0o600); err != nil {
				return err
			}
		}
		for _, e := range w.entries {
			for _, path := range e.Paths {
				if err := r.settleName(tree, path, e.Mode, view); err != nil {
					return err
				}
			}
		}
		return remove(r.journal)
	})
}

// settleName settles what has a name now.
func (r *run) settleName(tree *os.File, path []byte, mode uint32, view shift) error {
	t, err := open(tree, path, mode)
	if t == nil || err != nil {
		return err
	}
	defer t.close()
	a := attributes{Mode: t.stat.Mode & (modeType | modePerm), UID: t.stat.Uid, GID: t.stat.Gid}
	if a.Mode&modeType != modeSymlink {
		for attr, value := range map[string]*[]byte{xattrCapability: &a.Capability, xattrAccess: &a.Access, xattrDefault: &a.Default} {
			if *value, err = getxattr(t.proc(), attr); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
				return &os.PathError{Op: "getxattr " + attr, Path: string(path), Err: err}
			}
		}
	}
	v := view.inode(a)
	if v.moved() {
		if err := r.set(t, string(path), v); err != nil {
			return err
		}
	}
	if idmap.HostIDs.Contains(idmap.HostID(t.stat.Uid)) || idmap.HostIDs.Contains(idmap.HostID(t.stat.Gid)) {
		r.report.Left.add(string(path))
	}
	return nil
}
