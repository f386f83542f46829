// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"encoding/json"
	"testing"
)

func TestSlots(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		size uint32
		want int
	}{
		{"1879048192-2147352575", SlotSize, 4094},
		{"65536-131071", SlotSize, 1},
		{"65537-131072", SlotSize, 0},
		{"100000-231071", SlotSize, 1},
		{"65536-262143", 2 * SlotSize, 1},
		{"0-2147483647", SlotSize, 32768},
		{"65536-131071", 0, 0},
	} {
		r, err := ParseSpan(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Slots(c.size); got != c.want {
			t.Errorf("%s: %d slots of %d, want %d", c.text, got, c.size, c.want)
		}
		if r.String() != c.text {
			t.Errorf("span %s, want %s", r, c.text)
		}
	}
}

func TestSpans(t *testing.T) {
	t.Parallel()
	a, b, all := Span{10, 10}, Span{20, 1}, Span{0, 1<<32 - 1}
	for _, c := range []struct {
		name      string
		got, want bool
	}{
		{"neighbours", a.Overlaps(b) || b.Overlaps(a), false},
		{"one in the other", a.Overlaps(all) && all.Overlaps(a), true},
		{"first", a.Contains(10), true},
		{"last", a.Contains(19), true},
		{"before", a.Contains(9), false},
		{"behind", a.Contains(20), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v", c.name, c.got)
		}
	}
}

// TestSpanInStateFiles: running containers have spans on disk in this form.
func TestSpanInStateFiles(t *testing.T) {
	t.Parallel()
	const want = `{"first":65536,"size":131072}`
	if got, err := json.Marshal(Span{65536, 131072}); err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
}

func FuzzParseSpan(f *testing.F) {
	f.Add("1879048192-2147352575")
	f.Add("1-")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseSpan(text)
		if err != nil {
			return
		}
		again, err := ParseSpan(r.String())
		if err != nil || again != r || r.Size == 0 {
			t.Errorf("%q: %v, then %v %v", text, r, again, err)
		}
	})
}
