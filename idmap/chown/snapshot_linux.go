// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
	"github.com/isolate-shim/isolate/internal/linux/flock"
)

// Snapshot is a rootfs that belongs to one caller until Close.
//
// Two locks keep others off. Whoever looks at the state or walks the files has
// the first one; whoever runs on the files has a share of the second.
type Snapshot struct {
	store Store
	id    identity
	base  string
	owner string
	walk  *os.File // nil once the snapshot is used
	used  *os.File
	state State // the zero value if there is none
}

const (
	usedSuffix = ".used"
	// lockPause is how often a start looks whether another one is through.
	lockPause = 20 * time.Millisecond
)

// Acquire takes hold of the snapshot at a directory, to move its ids to a span for
// a container ("namespace/id"). It waits while another start of the same snapshot
// moves them; if a container runs on it with other ids it answers an error that
// matches ErrBusy. alive tells whether a container still runs whose shim, and with
// it the lock, is gone.
func (s Store) Acquire(ctx context.Context, dir, owner string, to idmap.Span, alive func(owner string) bool) (_ *Snapshot, retErr error) {
	id, err := identify(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("create directory of states: %w", err)
	}
	n := &Snapshot{store: s, id: id, base: s.base(id.path), owner: owner}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, n.Close())
		}
	}()
	for {
		if n.walk, err = tryLock(n.base+lockSuffix, flock.Exclusive); err == nil {
			break
		}
		if !errors.Is(err, flock.ErrLocked) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("rootfs %q: another start of it moves its ids: %w", id.path, context.Cause(ctx))
		case <-time.After(lockPause):
		}
	}
	st, ok, err := s.recorded(id)
	if err != nil {
		return nil, err
	}
	if !ok {
		// What another directory of this name has left.
		if err := remove(n.base + journalSuffix); err != nil {
			return nil, fmt.Errorf("remove old journal: %w", err)
		}
		return n, nil
	}
	n.state = st
	if st.Target() == to && st.Complete != "" {
		return n, nil
	}
	busy := &BusyError{Path: id.path, Owner: st.Owner, Span: st.Target()}
	used, err := tryLock(n.base+usedSuffix, flock.Exclusive)
	if errors.Is(err, flock.ErrLocked) || err == nil && st.Owner != owner && alive(st.Owner) {
		return nil, errors.Join(busy, flock.Close(used))
	}
	return n, errors.Join(err, flock.Close(used))
}

// Close lets go of the snapshot.
func (n *Snapshot) Close() error {
	err := errors.Join(flock.Close(n.walk), flock.Close(n.used))
	n.walk, n.used = nil, nil
	return err
}

// use goes over from preparing to running.
func (n *Snapshot) use() (err error) {
	if n.used == nil {
		if n.used, err = tryLock(n.base+usedSuffix, flock.Shared); err != nil {
			return fmt.Errorf("rootfs %q: %w", n.id.path, err)
		}
	}
	err = flock.Close(n.walk)
	n.walk = nil
	return err
}

// Options are for a run over a snapshot.
type Options struct {
	// Also are spans that the layers below, which are not touched, may have ids
	// in: those of snapshots that were shifted and then made a layer.
	Also []idmap.Span
	// Progress is called every two seconds. It may be nil.
	Progress func(Report)
}

// Shift moves the ids of all files below tree, the snapshot's mounted root, to a
// span, and takes the snapshot into use. It does nothing if they are there. After
// an error, or if it is killed, another call goes on from where it was.
func (n *Snapshot) Shift(ctx context.Context, tree *os.File, to idmap.Span, o Options) (Report, error) {
	boot, err := bootID()
	if err != nil {
		return Report{}, err
	}
	if n.state.reached(to, boot) {
		return Report{}, n.use()
	}
	started := time.Now()
	from := slices.Concat([]idmap.Span{{Size: to.Size}}, n.state.Spans, o.Also)
	if span, bad := newShift(from, to).ambiguous(); bad {
		if span.First == 0 {
			return Report{}, fmt.Errorf("rootfs %q: the container's ids %s overlap those that images have, %s; choose a higher \"ids.pool\"", n.id.path, to, span)
		}
		// An id in both could be one that has been moved already: by way of those
		// of the image.
		if _, err := n.back(ctx, tree, o); err != nil {
			return Report{}, err
		}
		from = slices.Concat([]idmap.Span{{Size: to.Size}}, o.Also)
		if span, bad := newShift(from, to).ambiguous(); bad {
			return Report{}, fmt.Errorf("rootfs %q: the container's ids %s overlap those of a layer, %s; start it again to get others", n.id.path, to, span)
		}
	}
	st := n.state
	if len(st.Spans) == 0 {
		st = State{Version: stateVersion, Path: n.id.path, Inode: n.id.inode, Birth: n.id.birth}
	}
	for _, span := range slices.Concat(o.Also, []idmap.Span{to}) {
		st = st.towards(span)
	}
	st.Owner = n.owner
	if err := n.save(st); err != nil {
		return Report{}, err
	}
	r := &run{shift: newShift(from, to), journal: n.base + journalSuffix, progress: o.Progress, started: started}
	if err := r.do(ctx, tree); err != nil {
		return r.report, fmt.Errorf("shift ids of rootfs %q: %w", n.id.path, err)
	}
	if err := n.save(st.settled(r.left, boot)); err != nil {
		return r.report, err
	}
	n.store.collect()
	return r.report, n.use()
}

// Restore moves all ids back to where an image has them, and forgets the snapshot.
func (n *Snapshot) Restore(ctx context.Context, tree *os.File, o Options) (Report, error) {
	if len(n.state.Spans) == 0 {
		return Report{}, nil
	}
	r, err := n.back(ctx, tree, o)
	if err != nil {
		return r, err
	}
	return r, n.forget()
}

// back moves all ids back to where an image has them.
func (n *Snapshot) back(ctx context.Context, tree *os.File, o Options) (Report, error) {
	st := n.state
	st.Complete, st.Owner = "", n.owner
	if err := n.save(st); err != nil {
		return Report{}, err
	}
	var to idmap.Span
	for _, s := range st.Spans {
		to.Size = max(to.Size, s.Size)
	}
	r := &run{shift: newShift(st.Spans, to), journal: n.base + journalSuffix, progress: o.Progress, started: time.Now()}
	if err := r.do(ctx, tree); err != nil {
		return r.report, fmt.Errorf("shift ids of rootfs %q back: %w", n.id.path, err)
	}
	n.state = State{}
	return r.report, nil
}

func (n *Snapshot) forget() error {
	if err := remove(n.base + stateSuffix); err != nil {
		return fmt.Errorf("forget state of rootfs: %w", err)
	}
	return atomicfile.SyncDir(n.store.dir)
}

func (n *Snapshot) save(st State) error {
	if err := st.valid(); err != nil {
		return err
	}
	data, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if err := atomicfile.WriteDurably(n.base+stateSuffix, data, 0o600); err != nil {
		return err
	}
	n.state = st
	return nil
}

// readJournal returns the entries of a run that did not come to its end.
func readJournal(name string) ([]entry, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	entries, err := parseJournal(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return entries, nil
}
