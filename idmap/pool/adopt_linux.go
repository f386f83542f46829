// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/flock"
	"github.com/isolate-shim/isolate/internal/linux/proc"
)

// ErrOverlap means that a mapping has ids that a container of isolate has.
var ErrOverlap = errors.New("host ids overlap")

// overlapError says with what a mapping overlaps. It matches [ErrOverlap].
type overlapError struct {
	IDs idmap.Span // a range that has some of the ids
	// Holder is the container that has the ids; nil if Kept says who has them.
	Holder *Owner
	Kept   string // a process that has outlived its container
}

// Error says who has the ids and what to do.
func (e *overlapError) Error() string {
	const instead = "leave the user namespace out of the container's spec, and isolate gives it ids of its own"
	if e.Holder == nil {
		return fmt.Sprintf("host ids %s of its mapping are of isolate's own pool (%q) and not free, because %s: %s, or map other ids", e.IDs, setting, e.Kept, instead)
	}
	return fmt.Sprintf("host ids %s of its mapping are those of container %q in namespace %q: %s, or map other ids, or let callers share ids among containers (%s = \"shared\")",
		e.IDs, e.Holder.ID, e.Holder.Namespace, instead, adoptSetting)
}

// Is matches [ErrOverlap].
func (e *overlapError) Is(target error) bool { return target == ErrOverlap }

// Adopt holds the ids of a mapping that the caller of isolate has made, until the
// lease is released or its holder dies, so that no other container gets or adopts
// one of them. It refuses, with an [overlapError], ids that another container has,
// unless both containers share the user namespace.
//
// Ids of the pool itself are given if they are free: a kubelet without a range of its
// own takes any ids above 65535 for a pod, and the pod keeps them for good.
//
// userns is the path of the user namespace that the container joins, "" for a new
// one. With shared set, a container may adopt ids that another one has adopted.
func (p *Pool) Adopt(ctx context.Context, m idmap.Mapping, owner Owner, userns string, shared bool) (_ *Lease, retErr error) {
	spans := hostSpans(m)
	lock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { retErr = errors.Join(retErr, flock.Close(lock)) }()
	if err := p.leased(ctx, spans); err != nil {
		return nil, err
	}
	others, err := p.adopted(ctx, spans)
	if err != nil {
		return nil, err
	}
	for _, o := range others {
		if shared || sharesUserns(o.record.inits, userns) {
			continue
		}
		return nil, &overlapError{IDs: o.spans[0], Holder: &o.record.owner}
	}
	if len(others) == 0 {
		if err := p.outlived(ctx, spans); err != nil {
			return nil, err
		}
	}
	if err := p.unprove(spans); err != nil {
		return nil, err
	}

	file, err := p.open(filepath.Join(adoptedDir, adoptedName(m, spans)))
	if err != nil {
		return nil, err
	}
	lease := &Lease{files: []*os.File{file}}
	if err := flock.Exclusive(file); err == nil {
		err = lease.claim(claim{Owner: owner, Mapping: &m})
		if err == nil {
			err = flock.Shared(file)
		}
		if err != nil {
			return nil, errors.Join(err, lease.close())
		}
		return lease, nil
	} else if !errors.Is(err, flock.ErrLocked) {
		return nil, errors.Join(err, lease.close())
	}
	if err := flock.Shared(file); err != nil {
		return nil, errors.Join(err, lease.close())
	}
	if err := lease.append(line{Joined: &owner}); err != nil {
		return nil, errors.Join(err, lease.close())
	}
	return lease, nil
}

// unprove notes that the slots of these ids are no longer free, of this pool and of
// another caller's.
func (p *Pool) unprove(spans []idmap.Span) error {
	free, err := p.readFree()
	if err != nil {
		return err
	}
	for _, s := range spans {
		first, end := touched(s)
		if err := free.set(first, end, false); err != nil {
			return errors.Join(err, free.file.Close())
		}
	}
	return free.file.Close()
}

// leased returns an [overlapError] if a container has an overlapping range, of this
// pool or of another caller's.
func (p *Pool) leased(ctx context.Context, spans []idmap.Span) error {
	files, err := p.slotFiles()
	if err != nil {
		return err
	}
	for number := range files {
		slot := slotSpan(number)
		if !overlap([]idmap.Span{slot}, spans) {
			continue
		}
		r, had, err := p.look(ctx, slotName(number))
		if err != nil {
			return err
		}
		if had {
			return &overlapError{IDs: slot, Holder: &r.owner}
		}
	}
	return nil
}

// outlived returns an [overlapError] if a process has ids of a slot of the pool that no
// container has.
func (p *Pool) outlived(ctx context.Context, spans []idmap.Span) error {
	free, err := p.readFree()
	if err != nil {
		return err
	}
	defer free.file.Close()
	for _, s := range spans {
		var numbers []uint32
		for n, end := touched(s); n < end; n++ {
			if _, ours := slices.BinarySearch(p.slots, n); ours {
				numbers = append(numbers, n)
			}
		}
		kept, err := p.prove(ctx, free, numbers)
		if err != nil {
			return err
		}
		if len(kept) > 0 {
			return &overlapError{IDs: s, Kept: kept[0]}
		}
	}
	return nil
}

// adoptedDir is where adopted mappings have their files, below the pool's.
const adoptedDir = "adopted"

// adopted is a mapping that a caller has made and a container still has.
type adopted struct {
	spans  []idmap.Span
	record record
}

// adoptedName names a mapping by its lowest and its highest host id and a hash. The
// two ids spare opening the files of most other mappings.
func adoptedName(m idmap.Mapping, spans []idmap.Span) string {
	first, last := spans[0].First, spans[0].End()-1
	for _, s := range spans {
		first, last = min(first, s.First), max(last, s.End()-1)
	}
	h := fnv.New64a()
	h.Write([]byte(m.String())) // never fails
	return fmt.Sprintf("%d-%d.%016x", first, last, h.Sum64())
}

// adopted returns the adopted mappings that have ids of spans.
func (p *Pool) adopted(ctx context.Context, spans []idmap.Span) ([]adopted, error) {
	path := filepath.Join(p.dir, adoptedDir)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("open id pool: %w", err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("list id pool: %w", err)
	}
	var found []adopted
	for _, entry := range entries {
		var first, last uint64
		if _, err := fmt.Sscanf(entry.Name(), "%d-%d.", &first, &last); err != nil || last < first {
			continue
		}
		bounds := idmap.Span{First: idmap.HostID(first), Size: uint32(last - first + 1)}
		if !overlap([]idmap.Span{bounds}, spans) {
			continue
		}
		r, had, err := p.look(ctx, filepath.Join(adoptedDir, entry.Name()))
		if err != nil {
			return nil, err
		}
		a := adopted{spans: []idmap.Span{bounds}, record: r}
		if r.mapping != nil {
			a.spans = hostSpans(*r.mapping)
		}
		if had && overlap(a.spans, spans) {
			found = append(found, a)
		}
	}
	return found, nil
}

// look reads the file of a slot or of an adopted mapping and tells whether its ids
// are taken: the file has a holder, or its record names something that lives, or the
// record cannot be read.
func (p *Pool) look(ctx context.Context, name string) (_ record, had bool, retErr error) {
	file, err := p.open(name)
	if err != nil {
		return record{}, false, err
	}
	defer func() { retErr = errors.Join(retErr, flock.Close(file)) }()
	lockErr := flock.Exclusive(file)
	if lockErr != nil && !errors.Is(lockErr, flock.ErrLocked) {
		return record{}, false, lockErr
	}
	r, _, err := readRecord(file)
	return r, lockErr != nil || err != nil || r.inUse(ctx) != "", nil
}

func overlap(a, b []idmap.Span) bool {
	for _, x := range a {
		for _, y := range b {
			if x.Overlaps(y) {
				return true
			}
		}
	}
	return false
}

// hostSpans returns the host ids of a mapping, of users and of groups: once each if they
// are the same, as nearly always.
func hostSpans(m idmap.Mapping) []idmap.Span {
	var spans []idmap.Span
	for _, ranges := range [][]idmap.Range{m.UIDs, m.GIDs} {
		for _, r := range ranges {
			if s := r.Span(); !slices.Contains(spans, s) {
				spans = append(spans, s)
			}
		}
	}
	return spans
}

// sharesUserns tells whether one of the processes is in that user namespace.
func sharesUserns(inits []proc.ID, userns string) bool {
	if userns == "" {
		return false
	}
	var joined unix.Stat_t
	if unix.Stat(userns, &joined) != nil {
		return false
	}
	for _, id := range inits {
		p, err := id.Open()
		if err != nil {
			continue
		}
		ns, err := p.Namespace("user")
		p.Close()
		if err != nil {
			continue
		}
		var own unix.Stat_t
		err = unix.Fstat(int(ns.Fd()), &own)
		ns.Close()
		if err == nil && own.Dev == joined.Dev && own.Ino == joined.Ino {
			return true
		}
	}
	return false
}
