// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/flock"
)

// isFree is the byte of the file "free", at the offset of a slot's number, for a slot
// that was proved free and not given out since. Any other byte, and the end of the
// file, means that the slot has to be proved.
const isFree = 'f'

// freeSlots is the content of the file "free", which the pool's lock protects.
type freeSlots struct {
	file  *os.File
	slots []byte
}

func (p *Pool) readFree() (*freeSlots, error) {
	f, err := os.OpenFile(filepath.Join(p.dir, "free"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open id pool: %w", err)
	}
	slots := make([]byte, (idmap.MaxHostID+1)/slotSize)
	if _, err := f.ReadAt(slots, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(fmt.Errorf("read %q: %w", f.Name(), err), f.Close())
	}
	return &freeSlots{file: f, slots: slots}, nil
}

func (f *freeSlots) has(number uint32) bool {
	return number < uint32(len(f.slots)) && f.slots[number] == isFree
}

// set notes slots as free, or not, before anything is done with them.
func (f *freeSlots) set(first, end uint32, free bool) error {
	end = min(end, uint32(len(f.slots)))
	if first >= end {
		return nil
	}
	part := f.slots[first:end]
	for i := range part {
		part[i] = '-'
		if free {
			part[i] = isFree
		}
	}
	if _, err := f.file.WriteAt(part, int64(first)); err != nil {
		return fmt.Errorf("write %q: %w", f.file.Name(), err)
	}
	return nil
}

// prove notes which of the slots are free: no lease holds them, and no process has
// their ids. It returns the processes that keep a slot from being free.
func (p *Pool) prove(ctx context.Context, free *freeSlots, numbers []uint32) (kept []string, _ error) {
	files, err := p.slotFiles()
	if err != nil {
		return nil, err
	}
	var given []uint32
	for _, number := range numbers {
		if free.has(number) {
			continue
		}
		if files[number] {
			file, err := p.open(slotName(number))
			if err != nil {
				return nil, err
			}
			lockErr := flock.Exclusive(file)
			if err := flock.Close(file); err != nil {
				return nil, err
			}
			if errors.Is(lockErr, flock.ErrLocked) {
				continue
			}
			if lockErr != nil {
				return nil, lockErr
			}
		}
		given = append(given, number)
	}
	if len(given) == 0 {
		return nil, nil
	}
	busy, err := p.busy(ctx)
	if err != nil {
		return nil, err
	}
	for _, number := range given {
		if who, ok := busy[number]; ok {
			kept = append(kept, who)
			continue
		}
		if err := free.set(number, number+1, true); err != nil {
			return nil, err
		}
	}
	return kept, nil
}

// busy returns the slots of the pool whose ids are taken, and who has them.
func (p *Pool) busy(ctx context.Context) (map[uint32]string, error) {
	ids, err := findUsers()
	if err != nil {
		return nil, err
	}
	all := idmap.Span{First: idmap.HostID(p.slots[0] * slotSize), Size: (p.slots[len(p.slots)-1] - p.slots[0] + 1) * slotSize}
	adopted, err := p.adopted(ctx, []idmap.Span{all})
	if err != nil {
		return nil, err
	}
	busy := map[uint32]string{}
	note := func(s idmap.Span, who string) {
		first, end := touched(s)
		for n := max(first, p.slots[0]); n < end && n <= p.slots[len(p.slots)-1]; n++ {
			busy[n] = who
		}
	}
	for span, who := range ids {
		if span.Overlaps(all) {
			note(span, who.String())
		}
	}
	for _, a := range adopted {
		for _, span := range a.spans {
			note(span, fmt.Sprintf("container %q has adopted ids of it", a.record.owner.ID))
		}
	}
	return busy, nil
}

// slotFiles returns the numbers of the slots that have a file.
func (p *Pool) slotFiles() (map[uint32]bool, error) {
	dir, err := os.Open(p.dir)
	if err != nil {
		return nil, fmt.Errorf("list id pool: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(0)
	if err != nil {
		return nil, fmt.Errorf("list id pool: %w", err)
	}
	files := map[uint32]bool{}
	for _, name := range names {
		digits, ok := strings.CutPrefix(name, slotPrefix)
		if !ok {
			continue
		}
		if number, err := strconv.ParseUint(digits, 10, 16); err == nil {
			files[uint32(number)] = true
		}
	}
	return files, nil
}
