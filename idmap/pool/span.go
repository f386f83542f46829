// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/isolate-shim/isolate/idmap"
)

const (
	// SlotSize is the unit and alignment of allocation: the 16 bits of ids that
	// an ordinary image may use (systemd's UIDS-GIDS.md, kubelet and podman use
	// the same unit, so that aligned slots never straddle theirs).
	SlotSize = 1 << 16

	// maxID is the exclusive end of usable ids: devpts and other kernel code
	// take ids as signed 32-bit numbers.
	maxID = 1 << 31

	// Setting is the name of the configuration key for the pool, for messages.
	Setting = "ids.pool"

	// AdoptSetting is that of the key for the parameter shared of [Pool.Adopt].
	AdoptSetting = "ids.adopt"
)

// Default is the pool used when nothing else is configured: 4094 slots between
// the ranges that systemd documents as unused, clear of the defaults of
// useradd, LXD, systemd-nspawn, podman and kubelet, and below systemd's
// "foreign" range at 0x7FFE0000.
var Default = Span{First: 0x70000000, Count: 0x7FFDFFFF - 0x70000000 + 1}

// Span is a run of host ids, user and group ids alike.
type Span struct {
	First idmap.HostID
	Count uint32
}

// String returns "first-last".
func (s Span) String() string {
	return fmt.Sprintf("%d-%d", s.First, s.end()-1)
}

// end is the first id after the span; 64 bits, because it can be 2^32.
func (s Span) end() uint64 { return uint64(s.First) + uint64(s.Count) }

func (s Span) overlaps(o Span) bool {
	return uint64(s.First) < o.end() && uint64(o.First) < s.end()
}

// slots returns the numbers (first id / SlotSize) of the first whole aligned
// slot and of the one after the last.
func (s Span) slots() (first, end uint32) {
	first = uint32((uint64(s.First) + SlotSize - 1) / SlotSize)
	end = uint32(s.end() / SlotSize)
	return first, max(first, end)
}

// touched is slots, of all that have an id of the span.
func (s Span) touched() (first, end uint32) {
	return uint32(s.First / SlotSize), uint32((s.end() + SlotSize - 1) / SlotSize)
}

// Slots returns how many whole aligned slots the span holds.
func (s Span) Slots() int {
	first, end := s.slots()
	return int(end - first)
}

// check returns an error if the spans cannot serve as a pool.
func check(spans []Span) error {
	if len(spans) == 0 {
		return fmt.Errorf("id pool is empty; set %q or remove it", Setting)
	}
	sorted := slices.SortedFunc(slices.Values(spans), func(a, b Span) int {
		return cmp.Compare(a.First, b.First)
	})
	for i, s := range sorted {
		switch {
		case s.Count == 0:
			return fmt.Errorf("id span at %d is empty", s.First)
		case s.First == 0:
			return fmt.Errorf("id span %s contains the host's root", s)
		case s.end() > maxID:
			return fmt.Errorf("id span %s reaches beyond %d, which devpts cannot take", s, maxID-1)
		case s.Slots() == 0:
			return fmt.Errorf("id span %s holds no whole range of %d ids that starts at a multiple of %d", s, SlotSize, SlotSize)
		case i > 0 && sorted[i-1].overlaps(s):
			return fmt.Errorf("id spans %s and %s overlap", sorted[i-1], s)
		}
	}
	return nil
}

func format(spans []Span) string {
	s := make([]string, len(spans))
	for i := range spans {
		s[i] = spans[i].String()
	}
	return strings.Join(s, ", ")
}
