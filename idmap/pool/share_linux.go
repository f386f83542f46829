// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
)

// Share makes owner a further holder of a range that is leased already: a
// container that joins the user namespace of another one. The range stays
// reserved until every holder is gone, in whatever order that happens.
//
// Holders have a shared flock, which keeps Acquire from the exclusive one it
// takes to give a slot away.
func (p *Pool) Share(ctx context.Context, m idmap.Mapping, owner Owner) (_ *Lease, retErr error) {
	first, ok := m.RootUID()
	if !ok || len(m.UIDs) != 1 || !m.Equal(idmap.Contiguous(first, m.UIDs[0].Size)) {
		return nil, fmt.Errorf("share ids of mapping %v: not a range of this pool", m)
	}
	lock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { retErr = errors.Join(retErr, unlock(lock)) }()

	l := &Lease{First: first, Size: m.UIDs[0].Size}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(fmt.Errorf("share ids from %d on: %w", first, retErr), l.close())
		}
	}()
	for off := uint32(0); off < l.Size; off += SlotSize {
		f, err := p.open(slotName(uint32(first+idmap.HostID(off)) / SlotSize))
		if err != nil {
			return nil, err
		}
		l.files = append(l.files, f)
		if err := share(f); err != nil {
			return nil, err
		}
		r, ok, err := readRecord(f)
		if err != nil {
			return nil, err
		}
		if !ok || r.first != first || r.size != l.Size {
			return nil, errors.New("nobody has them any more")
		}
	}
	return l, l.append(line{Joined: &owner})
}

// share takes a shared flock on f, or turns an exclusive one into it.
func share(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	return lockError(f.Name(), err)
}
