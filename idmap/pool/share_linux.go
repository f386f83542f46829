// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"fmt"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/flock"
)

// Share makes owner a further holder of a range that is leased already. The owner
// joins the user namespace of another container. The range stays reserved until the
// last holder is gone.
//
// Each holder has a shared flock. So AcquirePreferred cannot take the exclusive one,
// which it needs to give the slot out.
func (p *Pool) Share(ctx context.Context, m idmap.Mapping, owner Owner) (_ *Lease, retErr error) {
	root, ok := m.RootUID()
	if !ok || len(m.UIDs) != 1 || !m.Equal(idmap.Contiguous(root, m.UIDs[0].Size)) {
		return nil, fmt.Errorf("share ids of mapping %v: it is not one range of ids from 0 on, as this pool gives out", m)
	}
	lock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { retErr = errors.Join(retErr, flock.Close(lock)) }()

	l := &Lease{Span: m.UIDs[0].Span()}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(fmt.Errorf("share ids from %d on: %w", root, retErr), l.close())
		}
	}()
	first, end := uint32(root)/slotSize, (uint32(root)+l.Size)/slotSize
	known := true
	for n := first; n < end; n++ {
		f, err := p.open(slotName(n))
		if err != nil {
			return nil, err
		}
		l.files = append(l.files, f)
		if err := flock.Shared(f); err != nil {
			return nil, err
		}
		r, ok, err := readRecord(f)
		if err != nil {
			return nil, err
		}
		if ok && (r.span != l.Span) {
			return nil, errors.New("another container has them")
		}
		known = known && ok
	}
	if known {
		return l, l.append(line{Joined: &owner})
	}
	return l, p.reclaim(l, owner)
}

// reclaim writes the record of a range again after its files were lost, if a process
// of the container to share with still has the ids.
func (p *Pool) reclaim(l *Lease, owner Owner) error {
	ids, err := findUsers()
	if err != nil {
		return err
	}
	for span := range ids {
		if span.Overlaps(l.Span) {
			return l.claim(claim{Owner: owner, Span: l.Span})
		}
	}
	return errors.New("no process has them any more: the container to share with has ended")
}
