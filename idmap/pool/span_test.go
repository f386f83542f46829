// SPDX-License-Identifier: Apache-2.0

package pool

import "testing"

func TestSlots(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		span   Span
		slots  int
		first  uint32 // of those that have an id of it
		end    uint32
		string string
	}{
		{Default, 4094, 28672, 32766, "1879048192-2147352575"},
		{Span{65536, 65536}, 1, 1, 2, "65536-131071"},
		{Span{100000, 165536}, 2, 1, 5, "100000-265535"},
		{Span{1, 2}, 0, 0, 1, "1-2"},
		{Span{1, 4294967295}, 65535, 0, 65536, "1-4294967295"},
		{Span{65535, 2}, 0, 0, 2, "65535-65536"},
	} {
		first, end := tc.span.touched()
		if tc.span.Slots() != tc.slots || first != tc.first || end != tc.end || tc.span.String() != tc.string {
			t.Errorf("%v: %d slots, touches %d to %d", tc.span, tc.span.Slots(), first, end)
		}
	}
}

func TestCheckSpans(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		spans []Span
		ok    bool
	}{
		{name: "default", spans: []Span{Default}, ok: true},
		{name: "two", spans: []Span{{131072, 65536}, {65536, 65536}}, ok: true},
		{name: "none"},
		{name: "empty span", spans: []Span{{65536, 0}}},
		{name: "host root", spans: []Span{{0, 131072}}},
		{name: "no whole slot", spans: []Span{{65537, 65536}}},
		{name: "overlap", spans: []Span{{65536, 131072}, {131072, 65536}}},
		{name: "devpts limit", spans: []Span{{0x7fff0000, 0x10001}}},
		{name: "just below devpts limit", spans: []Span{{0x7fff0000, 0x10000}}, ok: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if err := check(tc.spans); (err == nil) != tc.ok {
				t.Errorf("error %v, want ok: %t", err, tc.ok)
			}
		})
	}
}
