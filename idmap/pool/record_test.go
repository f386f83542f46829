// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"reflect"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/proc"
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
	claimed := line{Claim: &claim{Owner: owner, Span: idmap.Span{First: 65536, Size: slotSize}}}
	boundTo := line{Bound: &bound{Init: proc.ID{PID: 7, Start: 99}, Cgroups: []string{"/cg/b"}}}
	full := record{
		owner: owner, span: idmap.Span{First: 65536, Size: slotSize},
		inits: []proc.ID{{PID: 7, Start: 99}}, cgroups: []string{"/cg/a", "/cg/b"},
	}
	if got, want := lines(claimed), `{"claim":{"owner":{"namespace":"default","id":"web","cgroups":["/cg/a"]},"first":65536,"size":65536}}`+"\n"; got != want {
		t.Errorf("earlier versions, which read %s, would have to read %s", want, got)
	}
	mapping := idmap.Contiguous(100000, 65536)
	young := record{owner: owner, span: idmap.Span{First: 65536, Size: slotSize}, cgroups: []string{"/cg/a"}}
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
		{name: "of a later version", in: lines(claimed) + `{"later":{}}` + "\n" + `{"bound":{"init":{"pid":7,"start":99,"new":1},"cgroups":["/cg/b"]},"new":[]}` + "\n", want: full, ok: true},
		{name: "adopted", in: lines(line{Claim: &claim{Owner: owner, Mapping: &mapping}}), want: record{owner: owner, mapping: &mapping, cgroups: []string{"/cg/a"}}, ok: true},
		{name: "joined", in: lines(claimed, line{Joined: &Owner{ID: "peer", Cgroups: []string{"/cg/b"}}}), want: record{owner: owner, span: young.span, joined: []Owner{{ID: "peer", Cgroups: []string{"/cg/b"}}}, cgroups: []string{"/cg/a", "/cg/b"}}, ok: true},
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
	f.Add(`{"claim":{"owner":{"namespace":"n","id":"i"},"first":0,"size":0,"mapping":{"uids":[{"container":0,"host":1,"size":2}],"gids":[]}}}` + "\n")
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
