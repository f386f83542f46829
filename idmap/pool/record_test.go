// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestParseRecord(t *testing.T) {
	t.Parallel()
	owner := Owner{Namespace: "default", ID: "web", Cgroups: []string{"/cg/a"}}
	lines := func(all ...line) string {
		var b strings.Builder
		for _, l := range all {
			text, err := l.encode()
			if err != nil {
				t.Fatal(err)
			}
			b.Write(text)
		}
		return b.String()
	}
	claimed := line{Claim: &claim{Owner: owner, First: 65536, Size: SlotSize}}
	boundTo := line{Bound: &bound{Init: Process{PID: 7, Start: 99}, Cgroups: []string{"/cg/b"}}}
	full := record{
		owner: owner, first: 65536, size: SlotSize,
		inits: []Process{{PID: 7, Start: 99}}, cgroups: []string{"/cg/a", "/cg/b"},
	}
	young := record{owner: owner, first: 65536, size: SlotSize, cgroups: []string{"/cg/a"}}
	for _, tc := range []struct {
		name, in string
		want     record
		ok, err  bool
	}{
		{name: "never used"},
		{name: "claimed", in: lines(claimed), want: young, ok: true},
		{name: "bound", in: lines(claimed, boundTo), want: full, ok: true},
		{name: "claim cut off", in: strings.TrimSuffix(lines(claimed), "\n")},
		{name: "bound cut off", in: lines(claimed, boundTo)[:len(lines(claimed))+9], want: young, ok: true},
		{name: "foreign text", in: "hello\n", err: true},
		{name: "bound without claim", in: lines(boundTo), err: true},
		{name: "claimed twice", in: lines(claimed, claimed), err: true},
		{name: "empty object", in: "{}\n", err: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, ok, err := parseRecord(tc.in)
			if ok != tc.ok || (err != nil) != tc.err {
				t.Fatalf("ok %t, error %v; want ok %t, error %t", ok, err, tc.ok, tc.err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(`{"claim":{"owner":{"namespace":"n","id":"i"},"first":65536,"size":65536}}` + "\n" + `{"bound":{"init":{"pid":1,"start":2}}}` + "\n")
	f.Add("{}\n")
	f.Add("null\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, in string) {
		r, ok, err := parseRecord(in)
		if (err != nil || !ok) && !reflect.DeepEqual(r, record{}) {
			t.Errorf("%q gave %+v without success", in, r)
		}
	})
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	const rest = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21\n"
	for _, tc := range []struct {
		name, in string
		start    uint64
		err      bool
	}{
		{name: "plain", in: "12 (sh)" + rest, start: 4711},
		{name: "hostile name", in: "12 (a) R 1 (b\n)" + rest, start: 4711},
		{name: "too short", in: "12 (sh) S 1 2", err: true},
		{name: "no name", in: "12 S 1", err: true},
		{name: "empty", in: "", err: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			state, start, err := parseStat(tc.in)
			if (err != nil) != tc.err {
				t.Fatalf("error %v, want error: %t", err, tc.err)
			}
			if err == nil && (state != 'S' || start != tc.start) {
				t.Errorf("got state %c start %d, want S %d", state, start, tc.start)
			}
		})
	}
	if _, err := processOf(os.Getpid()); err != nil {
		t.Errorf("own process: %v", err)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("12 (sh) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21\n")
	f.Add(") )")
	f.Fuzz(func(_ *testing.T, in string) {
		_, _, _ = parseStat(in)
	})
}
