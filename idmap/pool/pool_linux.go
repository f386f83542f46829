// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
)

var (
	// ErrExhausted means that no free range of the wanted size is left.
	ErrExhausted = errors.New("no free id range")

	// ErrInUse means that a range cannot be given back yet: its shim, its init
	// process or a process in its cgroups is alive.
	ErrInUse = errors.New("id range is in use")
)

// ExhaustedError says how full the pool is. It matches [ErrExhausted].
type ExhaustedError struct {
	Spans []Span
	Want  int // slots in a row
	InUse int
	Total int
}

// Error names the pool, how full it is and the setting that enlarges it.
func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("no free range of %d ids in %s: %d of %d ranges of %d are in use; enlarge %q, or the line of user %q in both /etc/subuid and /etc/subgid",
		e.Want*SlotSize, format(e.Spans), e.InUse, e.Total, SlotSize, Setting, User)
}

// Is matches [ErrExhausted].
func (e *ExhaustedError) Is(target error) bool { return target == ErrExhausted }

// Pool allocates from spans of host ids. Any number of processes may use the
// same directory at the same time.
type Pool struct {
	dir   string
	spans []Span
	slots []uint32 // in ascending order
}

// Open opens the pool whose state is in dir, which is made if it does not exist,
// usually /run/isolate/.ids. The spans may differ from those of earlier calls:
// what was allocated stays so.
func Open(dir string, spans []Span) (*Pool, error) {
	if err := check(spans); err != nil {
		return nil, fmt.Errorf("open id pool %q: %w", dir, err)
	}
	// The directory above is shared with what containers' roots pass through.
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return nil, fmt.Errorf("open id pool: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open id pool: %w", err)
	}
	p := &Pool{dir: dir, spans: slices.Clone(spans)}
	for _, s := range spans {
		for n, end := s.slots(); n < end; n++ {
			p.slots = append(p.slots, n)
		}
	}
	slices.Sort(p.slots)
	return p, nil
}

// Acquire leases size ids, a multiple of SlotSize, that nothing else uses. The
// wait for other processes doing the same is bounded by ctx.
func (p *Pool) Acquire(ctx context.Context, owner Owner, size uint32) (*Lease, error) {
	return p.AcquirePreferred(ctx, owner, size, 0)
}

// AcquirePreferred is Acquire that takes the range which starts at first if that
// is free and the pool's: files on disk have these ids already. 0 is no
// preference.
func (p *Pool) AcquirePreferred(ctx context.Context, owner Owner, size uint32, first idmap.HostID) (_ *Lease, retErr error) {
	want := int(size / SlotSize)
	if size == 0 || size%SlotSize != 0 {
		return nil, fmt.Errorf("allocate %d ids: not a multiple of %d", size, SlotSize)
	}
	lock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { retErr = errors.Join(retErr, unlock(lock)) }()

	run, err := p.at(first, want)
	if err != nil {
		return nil, err
	}
	preferred := run != nil
	if !preferred {
		if run, err = p.find(cursor(lock), want); err != nil {
			return nil, err
		}
	}
	number := run[0].number
	lease := &Lease{First: idmap.HostID(number * SlotSize), Size: size}
	for _, s := range run {
		lease.files = append(lease.files, s.file)
	}
	if err := lease.claim(owner); err != nil {
		return nil, errors.Join(err, lease.close())
	}
	for _, f := range lease.files {
		if err := share(f); err != nil {
			return nil, errors.Join(err, lease.Release())
		}
	}
	if preferred {
		return lease, nil // no reason to look elsewhere next time
	}
	if err := setCursor(lock, number+uint32(want)); err != nil {
		return nil, errors.Join(err, lease.Release())
	}
	return lease, nil
}

// slot is an open and locked slot file.
type slot struct {
	number uint32
	file   *os.File
}

// at locks the want slots from the one that starts at first on, or none if they
// are not all free.
func (p *Pool) at(first idmap.HostID, want int) (_ []slot, retErr error) {
	if first == 0 || first%SlotSize != 0 {
		return nil, nil
	}
	var run []slot
	whole := false
	defer func() {
		if !whole {
			for _, s := range run {
				retErr = errors.Join(retErr, unlock(s.file))
			}
		}
	}()
	for i := range want {
		number := uint32(first)/SlotSize + uint32(i)
		if _, ours := slices.BinarySearch(p.slots, number); !ours {
			return nil, nil
		}
		file, err := p.take(number)
		if file == nil || err != nil {
			return nil, err
		}
		run = append(run, slot{number: number, file: file})
	}
	whole = true
	return run, nil
}

// find locks want free slots in a row, looking from slot number start on and
// around once. Starting where the last search ended keeps a range that was just
// given back out of use for long.
func (p *Pool) find(start uint32, want int) (_ []slot, retErr error) {
	var run []slot
	drop := func() error {
		var errs []error
		for _, s := range run {
			errs = append(errs, unlock(s.file))
		}
		run = nil
		return errors.Join(errs...)
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, drop())
		}
	}()
	total := len(p.slots)
	begin, _ := slices.BinarySearch(p.slots, start)
	inUse := 0
	for i := range total + want - 1 {
		number := p.slots[(begin+i)%total]
		if len(run) > 0 && run[len(run)-1].number+1 != number {
			if err := drop(); err != nil {
				return nil, err
			}
		}
		file, err := p.take(number)
		if err != nil {
			return nil, err
		}
		if file == nil {
			if i < total {
				inUse++
			}
			if err := drop(); err != nil {
				return nil, err
			}
			continue
		}
		run = append(run, slot{number: number, file: file})
		if len(run) == want {
			return run, nil
		}
	}
	return nil, &ExhaustedError{Spans: p.spans, Want: want, InUse: inUse, Total: total}
}

// take returns the locked file of a slot if that is free, else nil.
func (p *Pool) take(number uint32) (_ *os.File, retErr error) {
	file, err := p.open(slotName(number))
	if err != nil {
		return nil, err
	}
	free := false
	defer func() {
		if !free {
			retErr = errors.Join(retErr, unlock(file))
		}
	}()
	if err := tryLock(file); errors.Is(err, errLocked) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	r, ok, err := readRecord(file)
	if err != nil || ok && r.inUse() != "" {
		// A file that cannot be read stays reserved; List shows why.
		return nil, nil
	}
	free = true
	return file, nil
}

// Release gives back what the record of a dead shim says it had. It does nothing
// if the range is not that owner's any more, so it may be repeated. An error
// that matches ErrInUse means that the range is still in use; it becomes free by
// itself when that ends.
func (p *Pool) Release(ctx context.Context, first idmap.HostID, size uint32, owner Owner) (retErr error) {
	lock, err := p.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, unlock(lock)) }()
	var errs []error
	for off := uint32(0); off < size; off += SlotSize {
		if err := p.releaseSlot(uint32(first)/SlotSize+off/SlotSize, owner); err != nil {
			errs = append(errs, fmt.Errorf("release ids from %d on: %w", uint32(first)+off, err))
		}
	}
	return errors.Join(errs...)
}

func (p *Pool) releaseSlot(number uint32, owner Owner) (retErr error) {
	file, err := os.OpenFile(filepath.Join(p.dir, slotName(number)), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, unlock(file)) }()
	lockErr := tryLock(file)
	r, ok, err := readRecord(file)
	switch {
	case err != nil:
		return err
	case !ok || !r.owner.same(owner):
		return nil
	case errors.Is(lockErr, errLocked):
		return fmt.Errorf("%w: its shim is alive", ErrInUse)
	case lockErr != nil:
		return lockErr
	}
	if why := r.inUse(); why != "" {
		return fmt.Errorf("%w: %s", ErrInUse, why)
	}
	return file.Truncate(0)
}

// open opens a file of the pool's directory for reading and appending.
func (p *Pool) open(name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(p.dir, name), os.O_RDWR|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open id pool: %w", err)
	}
	return f, nil
}

const slotPrefix = "slot."

func slotName(number uint32) string { return slotPrefix + strconv.FormatUint(uint64(number), 10) }

func readRecord(f *os.File) (record, bool, error) {
	content, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil {
		return record{}, false, fmt.Errorf("read %q: %w", f.Name(), err)
	}
	r, ok, err := parseRecord(string(content))
	if err != nil {
		return record{}, false, fmt.Errorf("read %q: %w", f.Name(), err)
	}
	return r, ok, nil
}

// cursor returns the slot number at which the next search starts. What cannot be
// read, because it was never or only half written, means the beginning.
func cursor(lock *os.File) uint32 {
	var buf [16]byte
	n, err := lock.ReadAt(buf[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0
	}
	number, err := strconv.ParseUint(strings.TrimSpace(string(buf[:n])), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(number)
}

func setCursor(lock *os.File, number uint32) error {
	// Opened for appending, hence the truncation.
	err := lock.Truncate(0)
	if err == nil {
		_, err = lock.WriteString(strconv.FormatUint(uint64(number), 10))
	}
	if err != nil {
		return fmt.Errorf("write id pool cursor: %w", err)
	}
	return nil
}
