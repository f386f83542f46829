// SPDX-License-Identifier: Apache-2.0

package timens

import "testing"

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := parse("monotonic          -7         0\nboottime         -9   500\n")
	if err != nil || got != (Offsets{Boottime: Offset{Secs: -9}, Monotonic: Offset{Secs: -7}}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "monotonic 0 0\n", "monotonic x 0\nboottime 0 0\n", "monotonic 0\nboottime 0 0\n"} {
		if got, err := parse(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("monotonic          -7         0\nboottime         -9   500\n")
	f.Fuzz(func(t *testing.T, content string) {
		if o, err := parse(content); err != nil && o != (Offsets{}) {
			t.Errorf("%+v beside %v", o, err)
		}
	})
}

func TestFromNow(t *testing.T) {
	t.Parallel()
	o, err := FromNow()
	if err != nil {
		t.Fatal(err)
	}
	if o.Boottime.Secs >= 0 || o.Monotonic.Secs >= 0 || o.Boottime.Secs > o.Monotonic.Secs {
		t.Errorf("%+v", o)
	}
}
