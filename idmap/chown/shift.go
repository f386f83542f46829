// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"slices"

	"github.com/isolate-shim/isolate/idmap"
)

// shift moves the ids of any of some spans to one. A span is where on disk the
// container ids 0 to Size-1 are; with First 0 they are as an image has them.
type shift struct {
	From []idmap.Span
	To   idmap.Span
}

// newShift leaves out of the spans what is at the target already.
func newShift(from []idmap.Span, to idmap.Span) shift {
	s := shift{To: to}
	for _, f := range from {
		if f.First != to.First {
			s.From = append(s.From, f)
		}
	}
	return s
}

// ambiguous returns a span which the target overlaps, so that an id in both could
// be one that was moved or one that was not.
func (s shift) ambiguous() (idmap.Span, bool) {
	i := slices.IndexFunc(s.From, s.To.Overlaps)
	if i < 0 {
		return idmap.Span{}, false
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
func (s shift) id(id uint32) (uint32, place) {
	if s.To.Contains(idmap.HostID(id)) {
		return id, arrived
	}
	for _, f := range s.From {
		if !f.Contains(idmap.HostID(id)) {
			continue
		}
		if offset := id - uint32(f.First); offset < s.To.Size {
			return uint32(s.To.First) + offset, away
		}
	}
	return id, outside
}
