// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"testing"

	"github.com/isolate-shim/isolate/idmap"
)

func TestSlots(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		span   idmap.Span
		slots  int
		first  uint32 // of those that have an id of it
		end    uint32
		string string
	}{
		{defaultSpan, 4094, 28672, 32766, "1879048192-2147352575"},
		{idmap.Span{First: 65536, Size: 65536}, 1, 1, 2, "65536-131071"},
		{idmap.Span{First: 100000, Size: 165536}, 2, 1, 5, "100000-265535"},
		{idmap.Span{First: 1, Size: 2}, 0, 0, 1, "1-2"},
		{idmap.Span{First: 1, Size: 4294967295}, 65535, 0, 65536, "1-4294967295"},
		{idmap.Span{First: 65535, Size: 2}, 0, 0, 2, "65535-65536"},
	} {
		first, end := touched(tc.span)
		if tc.span.Slots(slotSize) != tc.slots || first != tc.first || end != tc.end || tc.span.String() != tc.string {
			t.Errorf("%v: %d slots, touches %d to %d", tc.span, tc.span.Slots(slotSize), first, end)
		}
	}
}

func TestCheckSpans(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		spans []idmap.Span
		ok    bool
	}{
		{name: "default", spans: []idmap.Span{defaultSpan}, ok: true},
		{name: "two", spans: []idmap.Span{{First: 131072, Size: 65536}, {First: 65536, Size: 65536}}, ok: true},
		{name: "none"},
		{name: "empty span", spans: []idmap.Span{{First: 65536, Size: 0}}},
		{name: "host root", spans: []idmap.Span{{First: 0, Size: 131072}}},
		{name: "no whole slot", spans: []idmap.Span{{First: 65537, Size: 65536}}},
		{name: "overlap", spans: []idmap.Span{{First: 65536, Size: 131072}, {First: 131072, Size: 65536}}},
		{name: "devpts limit", spans: []idmap.Span{{First: 0x7fff0000, Size: 0x10001}}},
		{name: "just below devpts limit", spans: []idmap.Span{{First: 0x7fff0000, Size: 0x10000}}, ok: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if err := check(tc.spans); (err == nil) != tc.ok {
				t.Errorf("error %v, want ok: %t", err, tc.ok)
			}
		})
	}
}
