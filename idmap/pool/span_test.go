// SPDX-License-Identifier: Apache-2.0

package pool

import "testing"

func TestParseSpan(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, in string
		want     Span
		slots    int
		err      bool
	}{
		{name: "default pool", in: "1879048192-2147352575", want: Default, slots: 4094},
		{name: "one slot", in: "65536-131071", want: Span{65536, 65536}, slots: 1},
		{name: "unaligned ends are not used", in: "100000-265535", want: Span{100000, 165536}, slots: 2},
		{name: "blanks", in: " 1 - 2 ", want: Span{1, 2}},
		{name: "up to the last id", in: "1-4294967295", want: Span{1, 4294967295}, slots: 65535},
		{name: "one id", in: "5-5", want: Span{5, 1}},
		{name: "reversed", in: "5-4", err: true},
		{name: "no dash", in: "5", err: true},
		{name: "negative", in: "-5-6", err: true},
		{name: "too large", in: "0-4294967296", err: true},
		{name: "everything", in: "0-4294967295", err: true},
		{name: "text", in: "a-b", err: true},
		{name: "empty", in: "", err: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseSpan(tc.in)
			if (err != nil) != tc.err {
				t.Fatalf("error %v, want error: %t", err, tc.err)
			}
			if err != nil {
				return
			}
			if got != tc.want || got.Slots() != tc.slots {
				t.Errorf("got %v with %d slots, want %v with %d", got, got.Slots(), tc.want, tc.slots)
			}
			again, err := ParseSpan(got.String())
			if err != nil || again != got {
				t.Errorf("String %q parses as %v, %v", got, again, err)
			}
		})
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

func FuzzParseSpan(f *testing.F) {
	for _, s := range []string{"1879048192-2147352575", "0-0", "1-", "-", "4294967295-4294967295"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		s, err := ParseSpan(in)
		if err != nil {
			return
		}
		if s.Count == 0 || s.end() > 1<<32 {
			t.Errorf("%q gave impossible span %+v", in, s)
		}
		first, end := s.slots()
		if first < end && (uint64(first)*SlotSize < uint64(s.First) || uint64(end)*SlotSize > s.end()) {
			t.Errorf("slots %d to %d are not inside %v", first, end, s)
		}
		if again, err := ParseSpan(s.String()); err != nil || again != s {
			t.Errorf("%q does not round trip: %v, %v", s, again, err)
		}
	})
}
