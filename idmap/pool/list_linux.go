// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/flock"
)

// Entry is a range that is or was leased.
type Entry struct {
	idmap.Span

	Owner Owner
	// Held tells that the lease's holder is alive.
	Held bool
	// InUse says what else keeps the range reserved, "" for nothing. A range that
	// is neither held nor in use is free.
	InUse string
	// Err is set for a slot whose file cannot be read, which stays reserved.
	Err error
}

// List returns, by their first id, all ranges that have an owner, inside and outside
// of the current spans, and the ranges of the pool that have no owner while processes
// have their ids.
func (p *Pool) List(ctx context.Context) (_ []Entry, retErr error) {
	busy, err := p.busy(ctx)
	if err != nil {
		return nil, err
	}
	// Under the pool's lock, because trying a slot's lock takes it for a moment, in
	// which a caller of AcquirePreferred would think the slot busy.
	lock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { retErr = errors.Join(retErr, flock.Close(lock)) }()
	files, err := p.slotFiles()
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for number := range files {
		e, ok := p.entry(ctx, number)
		if !ok {
			continue
		}
		first, end := touched(e.Span)
		for n := first; n < end; n++ {
			if who, ok := busy[n]; ok && e.InUse == "" {
				e.InUse = who
			}
			delete(busy, n)
		}
		entries = append(entries, e)
	}
	for number, who := range busy {
		entries = append(entries, Entry{Span: slotSpan(number), InUse: who})
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.First, b.First) })
	return entries, nil
}

// entry describes a slot; ok is false for one without owner, and for all but the
// first slot of a larger range.
func (p *Pool) entry(ctx context.Context, number uint32) (e Entry, ok bool) {
	e = Entry{Span: slotSpan(number)}
	file, err := os.OpenFile(filepath.Join(p.dir, slotName(number)), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		e.Err = err
		return e, true
	}
	defer flock.Close(file) //nolint:errcheck // not written to
	r, ok, err := readRecord(file)
	if err != nil {
		e.Err = err
		return e, true
	}
	if !ok || r.span.First != e.First {
		return Entry{}, false
	}
	e.Span, e.Owner, e.InUse = r.span, r.owner, r.inUse(ctx)
	switch err := flock.Exclusive(file); {
	case errors.Is(err, flock.ErrLocked):
		e.Held = true
	case err != nil:
		e.Err = err
	}
	return e, true
}

// Adopted returns, by their first id, the ranges of the mappings that callers have made
// and containers still have, inside and outside of the pool.
func (p *Pool) Adopted(ctx context.Context) (_ []Entry, retErr error) {
	lock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { retErr = errors.Join(retErr, flock.Close(lock)) }()
	found, err := p.adopted(ctx, []idmap.Span{{Size: idmap.MaxHostID}})
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for _, a := range found {
		for _, s := range a.spans {
			entries = append(entries, Entry{Span: s, Owner: a.record.owner, InUse: a.record.inUse(ctx)})
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.First, b.First) })
	return entries, nil
}
