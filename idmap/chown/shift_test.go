// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"testing"

	"github.com/isolate-shim/isolate/idmap"
)

func TestShiftID(t *testing.T) {
	t.Parallel()
	image := idmap.Span{Size: 65536}
	a, b := idmap.Span{First: 0x70000000, Size: 65536}, idmap.Span{First: 0x70010000, Size: 65536}
	large := idmap.Span{First: 0x70020000, Size: 131072}
	for _, test := range []struct {
		name  string
		shift shift
		id    uint32
		want  uint32
		at    place
	}{
		{"root", newShift([]idmap.Span{image}, a), 0, 0x70000000, away},
		{"last", newShift([]idmap.Span{image}, a), 65535, 0x7000ffff, away},
		{"first beyond", newShift([]idmap.Span{image}, a), 65536, 65536, outside},
		{"nobody knows", newShift([]idmap.Span{image}, a), 0xffffffff, 0xffffffff, outside},
		{"done", newShift([]idmap.Span{image}, a), 0x70000000, 0x70000000, arrived},
		{"last done", newShift([]idmap.Span{image}, a), 0x7000ffff, 0x7000ffff, arrived},
		{"from another container", newShift([]idmap.Span{image, a}, b), 0x70000021, 0x70010021, away},
		{"from an image meanwhile", newShift([]idmap.Span{image, a}, b), 33, 0x70010021, away},
		{"never shifted from there", newShift([]idmap.Span{image}, b), 0x70000021, 0x70000021, outside},
		{"back", newShift([]idmap.Span{a, b}, image), 0x70010021, 33, away},
		{"back, done", newShift([]idmap.Span{a, b}, image), 33, 33, arrived},
		{"from a larger range", newShift([]idmap.Span{large}, a), 0x70020000 + 65535, 0x7000ffff, away},
		{"no place in a smaller one", newShift([]idmap.Span{large}, a), 0x70020000 + 65536, 0x70020000 + 65536, outside},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, at := test.shift.id(test.id)
			if got != test.want || at != test.at {
				t.Errorf("id(%d) = %d, %d, want %d, %d", test.id, got, at, test.want, test.at)
			}
		})
	}
}

func TestShiftAmbiguous(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		from []idmap.Span
		to   idmap.Span
		want bool
	}{
		{"image and pool", []idmap.Span{{Size: 65536}}, idmap.Span{First: 65536, Size: 65536}, false},
		{"image and a range within its ids", []idmap.Span{{Size: 131072}}, idmap.Span{First: 65536, Size: 131072}, true},
		{"same first", []idmap.Span{{First: 65536, Size: 65536}}, idmap.Span{First: 65536, Size: 131072}, false},
		{"half a range on", []idmap.Span{{First: 131072, Size: 131072}}, idmap.Span{First: 196608, Size: 65536}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if span, got := newShift(test.from, test.to).ambiguous(); got != test.want {
				t.Errorf("ambiguous() = %v, %v, want %v", span, got, test.want)
			}
		})
	}
}
