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
	"github.com/isolate-shim/isolate/internal/linux/flock"
)

var (
	// errExhausted means that no free range of the wanted size is left.
	errExhausted = errors.New("no free id range")

	// ErrInUse means that a range cannot be given back yet: its shim, its init
	// process or a process in its cgroups is alive.
	ErrInUse = errors.New("id range is in use")
)

// exhaustedError says how full the pool is. It matches [errExhausted].
type exhaustedError struct {
	Spans []idmap.Span
	Want  int // slots in a row
	InUse int
	Total int
	// Kept says what keeps ranges that no lease holds.
	Kept []string
}

// Error names the pool, how full it is and the setting that enlarges it.
func (e *exhaustedError) Error() string {
	kept := ""
	if len(e.Kept) > 0 {
		kept = fmt.Sprintf(", %d of them only because a process has outlived its container (%s)", len(e.Kept), e.Kept[0])
	}
	return fmt.Sprintf("no free range of %d ids in %s: %d of %d ranges of %d are in use%s; enlarge %q, or the line of user %q in both /etc/subuid and /etc/subgid",
		e.Want*slotSize, format(e.Spans), e.InUse, e.Total, slotSize, kept, setting, User)
}

// Is matches [errExhausted].
func (e *exhaustedError) Is(target error) bool { return target == errExhausted }

// Pool allocates from spans of host ids. Any number of processes may use the
// same directory at the same time.
type Pool struct {
	dir   string
	spans []idmap.Span
	slots []uint32 // in ascending order
}

// Open opens the pool whose state is in dir, usually /run/isolate/.ids, and makes dir
// if it does not exist. The spans may differ from the spans of earlier calls: ranges
// that were given out stay so.
func Open(dir string, spans []idmap.Span) (*Pool, error) {
	if err := check(spans); err != nil {
		return nil, fmt.Errorf("open id pool %q: %w", dir, err)
	}
	// Containers' roots pass through the directory above.
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return nil, fmt.Errorf("open id pool: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open id pool: %w", err)
	}
	p := &Pool{dir: dir, spans: slices.Clone(spans)}
	for _, s := range spans {
		for n, end := slots(s); n < end; n++ {
			p.slots = append(p.slots, n)
		}
	}
	slices.Sort(p.slots)
	return p, nil
}

// AcquirePreferred leases size ids, a multiple of SlotSize, that no other container
// has. It prefers the ids from first on, which files on disk have already, if they are
// in the pool and free; 0 is no preference. ctx bounds the wait for other processes
// that do the same.
func (p *Pool) AcquirePreferred(ctx context.Context, owner Owner, size uint32, first idmap.HostID) (_ *Lease, retErr error) {
	want := int(size / slotSize)
	if size == 0 || size%slotSize != 0 {
		return nil, fmt.Errorf("allocate %d ids: not a multiple of %d", size, slotSize)
	}
	lock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { retErr = errors.Join(retErr, flock.Close(lock)) }()
	free, err := p.readFree()
	if err != nil {
		return nil, err
	}
	defer free.file.Close()

	run, err := p.at(ctx, free, first, want)
	if err != nil {
		return nil, err
	}
	preferred := run != nil
	if !preferred {
		if run, err = p.search(ctx, free, cursor(lock), want); err != nil {
			return nil, err
		}
	}
	number := run[0].number
	if err := free.set(number, number+uint32(want), false); err != nil {
		return nil, errors.Join(err, closeAll(run))
	}
	lease := &Lease{Span: idmap.Span{First: idmap.HostID(number * slotSize), Size: size}}
	for _, s := range run {
		lease.files = append(lease.files, s.file)
	}
	if err := lease.claim(claim{Owner: owner, Span: lease.Span}); err != nil {
		return nil, errors.Join(err, lease.close())
	}
	for _, f := range lease.files {
		if err := flock.Shared(f); err != nil {
			return nil, errors.Join(err, lease.Release(ctx))
		}
	}
	if preferred {
		return lease, nil // no reason to look elsewhere next time
	}
	if err := setCursor(lock, number+uint32(want)); err != nil {
		return nil, errors.Join(err, lease.Release(ctx))
	}
	return lease, nil
}

// slot is an open and locked slot file.
type slot struct {
	number uint32
	file   *os.File
}

// at locks want slots in a row, the first of which starts at id first. It locks none
// if one of them is not free.
func (p *Pool) at(ctx context.Context, free *freeSlots, first idmap.HostID, want int) ([]slot, error) {
	if first == 0 || first%slotSize != 0 {
		return nil, nil
	}
	var numbers []uint32
	for i := range want {
		number := uint32(first)/slotSize + uint32(i)
		if _, ours := slices.BinarySearch(p.slots, number); !ours {
			return nil, nil
		}
		numbers = append(numbers, number)
	}
	if _, err := p.prove(ctx, free, numbers); err != nil {
		return nil, err
	}
	return p.find(ctx, free, numbers, want)
}

// search locks want free slots in a row. It looks once through the pool, from slot
// number start on: where the last search has ended, so that a range that was just
// given back is not used again for a long time.
func (p *Pool) search(ctx context.Context, free *freeSlots, start uint32, want int) ([]slot, error) {
	begin, _ := slices.BinarySearch(p.slots, start)
	// The end does not join the beginning, but a row may lie across the start.
	numbers := slices.Concat(p.slots[begin:], p.slots[:min(begin+want-1, len(p.slots))])
	run, err := p.find(ctx, free, numbers, want)
	if run != nil || err != nil {
		return run, err
	}
	kept, err := p.prove(ctx, free, p.slots)
	if err != nil {
		return nil, err
	}
	run, err = p.find(ctx, free, numbers, want)
	if run != nil || err != nil {
		return run, err
	}
	full := &exhaustedError{Spans: p.spans, Want: want, Total: len(p.slots), Kept: kept}
	for _, number := range p.slots {
		if !free.has(number) {
			full.InUse++
		}
	}
	return nil, full
}

// find locks the first want slots in a row that are free.
func (p *Pool) find(ctx context.Context, free *freeSlots, numbers []uint32, want int) ([]slot, error) {
	var run []slot
	for _, number := range numbers {
		var file *os.File
		if free.has(number) {
			var err error
			if file, err = p.take(ctx, free, number); err != nil {
				return nil, errors.Join(err, closeAll(run))
			}
		}
		if len(run) > 0 && (file == nil || run[len(run)-1].number+1 != number) {
			if err := closeAll(run); err != nil {
				return nil, err
			}
			run = nil
		}
		if file == nil {
			continue
		}
		if run = append(run, slot{number: number, file: file}); len(run) == want {
			return run, nil
		}
	}
	return nil, closeAll(run)
}

func closeAll(run []slot) error {
	var errs []error
	for _, s := range run {
		errs = append(errs, flock.Close(s.file))
	}
	return errors.Join(errs...)
}

// take returns the locked file of a slot that was proved free. It returns nil, and the
// slot has to be proved again, if the slot has a holder or its record names a process
// or cgroup that lives: an isolate of a version without proofs has given it out. A
// slot whose file cannot be read stays reserved; List shows why.
func (p *Pool) take(ctx context.Context, free *freeSlots, number uint32) (_ *os.File, retErr error) {
	file, err := p.open(slotName(number))
	if err != nil {
		return nil, err
	}
	taken := false
	defer func() {
		if !taken {
			retErr = errors.Join(retErr, flock.Close(file), free.set(number, number+1, false))
		}
	}()
	if err := flock.Exclusive(file); errors.Is(err, flock.ErrLocked) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	r, ok, err := readRecord(file)
	taken = err == nil && (!ok || r.inUse(ctx) == "")
	if !taken {
		return nil, nil
	}
	return file, nil
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

// cursor returns the slot number at which the next search starts: 0 if it was never
// written, or only in part.
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
