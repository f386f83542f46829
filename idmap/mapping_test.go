// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestContiguous(t *testing.T) {
	t.Parallel()
	m := Contiguous(200000, 65536)
	if err := m.Valid(); err != nil {
		t.Fatal(err)
	}
	root, ok := m.Root()
	if !ok || root != (Owner{UID: 200000, GID: 200000}) {
		t.Errorf("root %v, %t", root, ok)
	}
	if m.String() != "0:200000:65536" {
		t.Errorf("string %q", m)
	}
	if !m.Equal(Contiguous(200000, 65536)) || m.Equal(Contiguous(200000, 65537)) {
		t.Error("Equal is wrong")
	}
}

func TestConvert(t *testing.T) {
	t.Parallel()
	m := Mapping{
		UIDs: []Range{{0, 1000, 1}, {1, 100000, 65535}, {4294967290, 5, 5}},
		GIDs: []Range{{10, 20, 5}},
	}
	if err := m.Valid(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		container ContainerID
		host      HostID
		ok        bool
	}{
		{0, 1000, true},
		{1, 100000, true},
		{65535, 165534, true},
		{65536, 0, false},
		{4294967290, 5, true},
		{4294967294, 9, true},
		{4294967295, 0, false},
	} {
		host, ok := m.UIDToHost(tc.container)
		if host != tc.host || ok != tc.ok {
			t.Errorf("UIDToHost(%d) = %d, %t", tc.container, host, ok)
		}
		if !ok {
			continue
		}
		if back, ok := m.UIDToContainer(host); !ok || back != tc.container {
			t.Errorf("UIDToContainer(%d) = %d, %t", host, back, ok)
		}
	}
	if _, ok := m.RootGID(); ok {
		t.Error("gid 0 is not mapped")
	}
	if _, ok := m.Root(); ok {
		t.Error("root is not wholly mapped")
	}
	if g, ok := m.GIDToHost(14); !ok || g != 24 {
		t.Errorf("GIDToHost(14) = %d, %t", g, ok)
	}
}

func TestValid(t *testing.T) {
	t.Parallel()
	many := func(n int) []Range {
		r := make([]Range, n)
		for i := range r {
			r[i] = Range{ContainerID(2 * i), HostID(1000 + 2*i), 1}
		}
		return r
	}
	for _, tc := range []struct {
		name   string
		ranges []Range
		err    string
	}{
		{name: "one", ranges: []Range{{0, 1, 1}}},
		{name: "most extents", ranges: many(maxExtents)},
		{name: "adjacent, unsorted", ranges: []Range{{10, 10, 10}, {0, 20, 10}}},
		{name: "up to the last id", ranges: []Range{{0, 1, 4294967294}}},
		{name: "none", err: "empty"},
		{name: "too many", ranges: many(maxExtents + 1), err: "at most 340"},
		{name: "no ids", ranges: []Range{{0, 1, 0}}, err: "is empty"},
		{name: "reserved id", ranges: []Range{{0, 1, 4294967295}}, err: "last host id"},
		{name: "container overflow", ranges: []Range{{4294967295, 1, 1}}, err: "last container id"},
		{name: "host overflow", ranges: []Range{{1, 4294967295, 1}}, err: "last host id"},
		{name: "container overlap", ranges: []Range{{0, 100, 10}, {9, 200, 10}}, err: "overlap in container"},
		{name: "host overlap", ranges: []Range{{0, 100, 10}, {20, 109, 10}}, err: "overlap in host"},
		{name: "inside", ranges: []Range{{0, 100, 100}, {200, 150, 1}}, err: "overlap in host"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, m := range []Mapping{
				{UIDs: tc.ranges, GIDs: []Range{{0, 1, 1}}},
				{UIDs: []Range{{0, 1, 1}}, GIDs: tc.ranges},
			} {
				err := m.Valid()
				if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
			}
		})
	}
}

func TestSpecRoundTrip(t *testing.T) {
	t.Parallel()
	uids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	gids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 300000, Size: 10}, {ContainerID: 10, HostID: 400000, Size: 5}}
	m, err := FromSpec(uids, gids)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(m.SpecUIDs(), uids) || !slices.Equal(m.SpecGIDs(), gids) {
		t.Errorf("got %v and %v", m.SpecUIDs(), m.SpecGIDs())
	}
	if _, err := FromSpec(uids, nil); err == nil {
		t.Error("a mapping without gids is accepted")
	}
}

func TestParseProcMap(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, in string
		want     []Range
		err      bool
	}{
		{name: "initial namespace", in: "         0          0 4294967295\n", want: []Range{{0, 0, 4294967295}}},
		{name: "two", in: "0 1000 1\n1 100000 65536\n", want: []Range{{0, 1000, 1}, {1, 100000, 65536}}},
		{name: "not set up yet"},
		{name: "short", in: "0 1\n", err: true},
		{name: "long", in: "0 1 2 3\n", err: true},
		{name: "negative", in: "0 -1 2\n", err: true},
		{name: "too large", in: "0 1 4294967296\n", err: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseProcMap(tc.in)
			if (err != nil) != tc.err || !slices.Equal(got, tc.want) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func FuzzParseProcMap(f *testing.F) {
	f.Add("         0          0 4294967295\n")
	f.Add("0 1000 1\n1 100000 65536\n")
	f.Add("\n")
	f.Fuzz(func(t *testing.T, in string) {
		ranges, err := ParseProcMap(in)
		if err != nil {
			return
		}
		var again strings.Builder
		for _, r := range ranges {
			fmt.Fprintf(&again, "%10d %10d %10d\n", r.Container, r.Host, r.Size)
		}
		if back, err := ParseProcMap(again.String()); err != nil || !slices.Equal(back, ranges) {
			t.Errorf("%q does not round trip: %v, %v", in, back, err)
		}
		// Whatever the kernel could hold, the validity check must not panic.
		_ = Mapping{UIDs: ranges, GIDs: ranges}.Valid()
	})
}
