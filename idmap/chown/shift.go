// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"fmt"
	"slices"

	"github.com/isolate-shim/isolate/idmap"
)

// Span is where on disk the container ids 0 to Size-1 are: at the host ids from
// First on. With First 0 they are as an image has them.
type Span struct {
	First idmap.HostID `json:"first"`
	Size  uint32       `json:"size"`
}

// String returns "first-last".
func (s Span) String() string { return fmt.Sprintf("%d-%d", s.First, s.end()-1) }

func (s Span) end() uint64 { return uint64(s.First) + uint64(s.Size) }

func (s Span) contains(id uint32) bool {
	return id >= uint32(s.First) && uint64(id) < s.end()
}

func (s Span) overlaps(o Span) bool {
	return uint64(s.First) < o.end() && uint64(o.First) < s.end()
}

// Shift moves the ids of any of some spans to one.
type Shift struct {
	From []Span
	To   Span
}

// newShift leaves out of the spans what is at the target already.
func newShift(from []Span, to Span) Shift {
	s := Shift{To: to}
	for _, f := range from {
		if f.First != to.First {
			s.From = append(s.From, f)
		}
	}
	return s
}

// ambiguous returns a span which the target overlaps, so that an id in both could
// be one that was moved or one that was not.
func (s Shift) ambiguous() (Span, bool) {
	i := slices.IndexFunc(s.From, s.To.overlaps)
	if i < 0 {
		return Span{}, false
	}
	return s.From[i], true
}

// place says where an id is.
type place uint8

const (
	outside place = iota // in none of the spans: it stays
	arrived              // where it belongs
	away                 // to be moved
)

// id returns where an id belongs.
func (s Shift) id(id uint32) (uint32, place) {
	if s.To.contains(id) {
		return id, arrived
	}
	for _, f := range s.From {
		if !f.contains(id) {
			continue
		}
		if offset := id - uint32(f.First); offset < s.To.Size {
			return uint32(s.To.First) + offset, away
		}
	}
	return id, outside
}
