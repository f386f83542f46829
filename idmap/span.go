// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// SlotSize is the unit and alignment of the ranges that containers get: the 16
	// bits of ids that an ordinary image may use (systemd's UIDS-GIDS.md, kubelet
	// and podman use the same unit, so that aligned slots never straddle theirs).
	SlotSize = 1 << 16

	// MaxHostID is the largest id that a container can have: devpts and other kernel
	// code take ids as signed 32-bit numbers.
	MaxHostID = 1<<31 - 1
)

// Span is a run of host ids, of users and groups alike.
type Span struct {
	First HostID `json:"first"`
	Size  uint32 `json:"size"`
}

// ParseSpan reads "first-last", two decimal ids that a container can have, with
// first <= last.
func ParseSpan(text string) (Span, error) {
	a, b, ok := strings.Cut(text, "-")
	if !ok {
		return Span{}, fmt.Errorf("id range %q: want \"first-last\", as in \"1879048192-2147352575\"", text)
	}
	first, err := parseHostID(a)
	if err != nil {
		return Span{}, fmt.Errorf("id range %q: first id: %w", text, err)
	}
	last, err := parseHostID(b)
	if err != nil {
		return Span{}, fmt.Errorf("id range %q: last id: %w", text, err)
	}
	if first > last {
		return Span{}, fmt.Errorf("id range %q: the first id is larger than the last one", text)
	}
	return Span{First: first, Size: uint32(last-first) + 1}, nil
}

func parseHostID(text string) (HostID, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a decimal number", text)
	}
	if n > MaxHostID {
		return 0, fmt.Errorf("%d is above the largest id, %d", n, uint32(MaxHostID))
	}
	return HostID(n), nil
}

// String is the form that [ParseSpan] reads.
func (s Span) String() string { return fmt.Sprintf("%d-%d", s.First, s.End()-1) }

// End is the first id after the span; 64 bits, because it can be 2^32.
func (s Span) End() uint64 { return uint64(s.First) + uint64(s.Size) }

// Contains tells whether an id is in the span.
func (s Span) Contains(id HostID) bool { return id >= s.First && uint64(id) < s.End() }

// Overlaps tells whether two spans have an id in common.
func (s Span) Overlaps(o Span) bool {
	return uint64(s.First) < o.End() && uint64(o.First) < s.End()
}

// Slots returns how many ranges of size ids that start at a multiple of [SlotSize]
// are in the span, one behind the other.
func (s Span) Slots(size uint32) int {
	first := (uint64(s.First) + SlotSize - 1) / SlotSize * SlotSize
	if size == 0 || s.End() <= first {
		return 0
	}
	return int((s.End() - first) / uint64(size))
}
