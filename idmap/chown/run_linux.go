// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
	"github.com/isolate-shim/isolate/internal/linux/thread"
)

// progressEvery is how often a long run says how far it is.
const progressEvery = 2 * time.Second

// checkpoint is called between all steps that change something. Tests replace it,
// to end the process there.
var checkpoint = func() {}

// run is one run over a tree.
type run struct {
	shift    shift
	journal  string // path
	progress func(Report)
	started  time.Time
	// running is set if the tree changes meanwhile. Then the walk only collects.
	running bool
	// wary is set if the tree may have changed since the journal was written.
	wary bool

	ctx    context.Context //nolint:containedctx // for one call of do
	report Report
	left   map[idmap.Span]bool // those in which ids stay
	said   time.Time
}

// do moves everything: first what a run before has collected, then what a chown
// does, then what the walk has collected.
//
// It works on a thread of its own, whose working directory it changes: extended
// attributes are read by a name in that, since they have no call that takes a
// directory's descriptor (before Linux 6.13).
func (r *run) do(ctx context.Context, tree *os.File) error {
	r.ctx, r.left, r.said = ctx, map[idmap.Span]bool{}, r.started
	defer func() { r.report.Took = time.Since(r.started) }()
	// The host's root, as which this runs anyway.
	return thread.WithFSIDs(0, 0, func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		unfinished, err := readJournal(r.journal)
		if err != nil {
			return err
		}
		if err := r.finish(tree, unfinished); err != nil {
			return fmt.Errorf("finish an earlier run: %w", err)
		}
		r.report = Report{} // what that moved is looked at once more
		w := &walker{run: r, links: map[link]int{}}
		if err := w.walk(tree); err != nil {
			return err
		}
		if len(w.entries) == 0 {
			return nil
		}
		data, err := encodeJournal(w.entries)
		if err != nil {
			return err
		}
		checkpoint()
		if err := atomicfile.WriteDurably(r.journal, data, 0o600); err != nil {
			return err
		}
		return r.finish(tree, w.entries)
	})
}

// finish does what a journal says, makes sure that it lasts, and removes the
// journal.
func (r *run) finish(tree *os.File, entries []entry) error {
	if len(entries) == 0 {
		return nil
	}
	for _, e := range entries {
		if err := r.alive(); err != nil {
			return err
		}
		if err := r.apply(tree, e); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if err := sync(tree, e); err != nil {
			return err
		}
	}
	checkpoint()
	if err := remove(r.journal); err != nil {
		return fmt.Errorf("remove journal: %w", err)
	}
	return nil
}

// alive ends a run that nobody waits for any more, and tells those who wait how
// far it is.
func (r *run) alive() error {
	if err := context.Cause(r.ctx); err != nil {
		return fmt.Errorf("given up after %s: %w", r.report, err)
	}
	if now := time.Now(); now.Sub(r.said) >= progressEvery {
		r.said = now
		r.report.Took = now.Sub(r.started)
		if r.progress != nil {
			r.progress(r.report)
		}
	}
	return nil
}

// note counts what stays as it is.
func (r *run) note(path string, a attributes, v verdict) {
	if v.left {
		r.report.Left.add(path)
		for _, s := range append([]idmap.Span{r.shift.To}, r.shift.From...) {
			if s.First != 0 && (s.Contains(idmap.HostID(a.UID)) || s.Contains(idmap.HostID(a.GID))) {
				r.left[s] = true
			}
		}
	}
	if len(v.strange) > 0 {
		r.report.Strange.add(path)
	}
}

// refused counts an inode that the kernel does not let be changed, or returns the
// error if that is not because it is immutable.
func (r *run) refused(dirfd int, name, path string, err error) error {
	if errors.Is(err, unix.EPERM) {
		var st unix.Statx_t
		flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
		if unix.Statx(dirfd, name, flags, 0, &st) == nil && st.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0 {
			r.report.Immutable.add(path)
			return nil
		}
	}
	return fmt.Errorf("move ids of %q: %w", path, err)
}
