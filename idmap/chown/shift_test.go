// SPDX-License-Identifier: Apache-2.0

package chown

import "testing"

func TestShiftID(t *testing.T) {
	t.Parallel()
	image := Span{Size: 65536}
	a, b := Span{First: 0x70000000, Size: 65536}, Span{First: 0x70010000, Size: 65536}
	large := Span{First: 0x70020000, Size: 131072}
	for _, test := range []struct {
		name  string
		shift Shift
		id    uint32
		want  uint32
		at    place
	}{
		{"root", newShift([]Span{image}, a), 0, 0x70000000, away},
		{"last", newShift([]Span{image}, a), 65535, 0x7000ffff, away},
		{"first beyond", newShift([]Span{image}, a), 65536, 65536, outside},
		{"nobody knows", newShift([]Span{image}, a), 0xffffffff, 0xffffffff, outside},
		{"done", newShift([]Span{image}, a), 0x70000000, 0x70000000, arrived},
		{"last done", newShift([]Span{image}, a), 0x7000ffff, 0x7000ffff, arrived},
		{"from another container", newShift([]Span{image, a}, b), 0x70000021, 0x70010021, away},
		{"from an image meanwhile", newShift([]Span{image, a}, b), 33, 0x70010021, away},
		{"never shifted from there", newShift([]Span{image}, b), 0x70000021, 0x70000021, outside},
		{"back", newShift([]Span{a, b}, image), 0x70010021, 33, away},
		{"back, done", newShift([]Span{a, b}, image), 33, 33, arrived},
		{"from a larger range", newShift([]Span{large}, a), 0x70020000 + 65535, 0x7000ffff, away},
		{"no place in a smaller one", newShift([]Span{large}, a), 0x70020000 + 65536, 0x70020000 + 65536, outside},
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
		from []Span
		to   Span
		want bool
	}{
		{"image and pool", []Span{{Size: 65536}}, Span{First: 65536, Size: 65536}, false},
		{"image and a range within its ids", []Span{{Size: 131072}}, Span{First: 65536, Size: 131072}, true},
		{"same first", []Span{{First: 65536, Size: 65536}}, Span{First: 65536, Size: 131072}, false},
		{"half a range on", []Span{{First: 131072, Size: 131072}}, Span{First: 196608, Size: 65536}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if span, got := newShift(test.from, test.to).ambiguous(); got != test.want {
				t.Errorf("ambiguous() = %v, %v, want %v", span, got, test.want)
			}
		})
	}
}
