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
	// slotSize is the unit of allocation.
	slotSize = idmap.SlotSize

	// setting is the name of the configuration key for the pool, for messages.
	setting = "ids.pool"

	// adoptSetting is the name of the configuration key that decides about the
	// parameter shared of [Pool.Adopt], for messages.
	adoptSetting = "ids.adopt"
)

// defaultSpan is the pool that is used when none is configured: 4094 slots in ranges
// that systemd documents as unused, clear of the defaults of
// useradd, LXD, systemd-nspawn and podman, and below systemd's "foreign" range at
// 0x7FFE0000. A kubelet without a range of its own takes any ids above 65535, these too.
var defaultSpan = idmap.Span{First: 0x70000000, Size: 0x7FFDFFFF - 0x70000000 + 1}

// slotSpan returns the ids of a slot.
func slotSpan(number uint32) idmap.Span {
	return idmap.Span{First: idmap.HostID(number * slotSize), Size: slotSize}
}

// slots returns the numbers (first id / SlotSize) of the first whole aligned
// slot and of the one after the last.
func slots(s idmap.Span) (first, end uint32) {
	first = uint32((uint64(s.First) + slotSize - 1) / slotSize)
	end = uint32(s.End() / slotSize)
	return first, max(first, end)
}

// touched returns the same of all slots that have an id of the span.
func touched(s idmap.Span) (first, end uint32) {
	return uint32(s.First / slotSize), uint32((s.End() + slotSize - 1) / slotSize)
}

// check returns an error if the spans cannot serve as a pool.
func check(spans []idmap.Span) error {
	if len(spans) == 0 {
		return fmt.Errorf("id pool is empty; set %q or remove it", setting)
	}
	sorted := slices.SortedFunc(slices.Values(spans), func(a, b idmap.Span) int {
		return cmp.Compare(a.First, b.First)
	})
	for i, s := range sorted {
		switch {
		case s.Size == 0:
			return fmt.Errorf("id span at %d is empty", s.First)
		case s.First == 0:
			return fmt.Errorf("id span %s contains the host's root", s)
		case s.End() > idmap.MaxHostID+1:
			return fmt.Errorf("id span %s reaches beyond %d, which devpts cannot take", s, uint32(idmap.MaxHostID))
		case s.Slots(slotSize) == 0:
			return fmt.Errorf("id span %s holds no whole range of %d ids that starts at a multiple of %d", s, slotSize, slotSize)
		case i > 0 && sorted[i-1].Overlaps(s):
			return fmt.Errorf("id spans %s and %s overlap", sorted[i-1], s)
		}
	}
	return nil
}

func format(spans []idmap.Span) string {
	s := make([]string, len(spans))
	for i := range spans {
		s[i] = spans[i].String()
	}
	return strings.Join(s, ", ")
}
