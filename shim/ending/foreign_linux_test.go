// SPDX-License-Identifier: Apache-2.0

package ending

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/idmap"
)

func TestShowIn(t *testing.T) {
	t.Parallel()
	devices := map[uint32]bool{}
	err := showIn(strings.NewReader(`23 29 0:21 / /sys rw shared:7 - sysfs sysfs rw
30 29 8:1 / /data rw - fuseblk /dev/sda1 rw
31 29 0:50 / /mnt/a\040b rw - fuse.lxcfs lxcfs rw
32 29 0:50 /proc/meminfo /proc/meminfo rw - fuse.lxcfs lxcfs rw`), devices)
	if got := slices.Sorted(maps.Keys(devices)); err != nil || !slices.Equal(got, []uint32{21, 50}) {
		t.Error(got, err)
	}
	if err := showIn(strings.NewReader("1 2 0:x / / rw\n"), devices); err == nil {
		t.Error("a device that is no number")
	}
}

func TestKilled(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]bool{
		"Name:\tSigPnd\nState:\tS (sleeping)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000004000\n": false,
		"State:\tD (disk sleep)\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n":              true,
		"State:\tT (stopped)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n":                 true,
		"State:\tZ (zombie)\n": true,
		"":                     false,
	} {
		if got := killed(status); got != want {
			t.Errorf("%q: %v", status, got)
		}
	}
}

func TestOverlap(t *testing.T) {
	t.Parallel()
	at := func(host idmap.HostID, size uint32) []idmap.Range { return []idmap.Range{{Host: host, Size: size}} }
	for _, c := range []struct {
		a, b []idmap.Range
		want bool
	}{
		{at(10, 10), at(10, 10), true},
		{at(10, 10), at(19, 1), true},
		{at(10, 10), at(20, 10), false},
		{at(20, 10), at(10, 10), false},
		{at(1<<32-11, 10), at(1<<32-2, 1), true},
		{append(at(1, 1), at(10, 10)...), at(15, 1), true},
		{nil, at(10, 10), false},
	} {
		if got := overlap(c.a, c.b); got != c.want {
			t.Errorf("%v and %v: %v", c.a, c.b, got)
		}
	}
}
