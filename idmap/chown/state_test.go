// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/isolate-shim/isolate/idmap"
)

func TestParseState(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text string
		fails      bool
	}{
		{name: "whole", text: `{"version":1,"path":"/var/a","inode":7,"birth":8,"spans":[{"first":65536,"size":65536}],"complete":"b","owner":"default/a"}`},
		{name: "shortest", text: `{"version":1,"path":"/","inode":7,"spans":[{"first":65536,"size":65536}],"owner":""}`},
		{name: "later version", text: `{"version":2,"path":"/a","inode":7,"spans":[{"first":65536,"size":65536}],"owner":"","x":1}`},
		{name: "no version", text: `{"path":"/a","inode":7,"spans":[{"first":65536,"size":65536}],"owner":""}`, fails: true},
		{name: "relative", text: `{"version":1,"path":"a","inode":7,"spans":[{"first":65536,"size":65536}],"owner":""}`, fails: true},
		{name: "not clean", text: `{"version":1,"path":"/a/../b","inode":7,"spans":[{"first":65536,"size":65536}],"owner":""}`, fails: true},
		{name: "no span", text: `{"version":1,"path":"/a","inode":7,"owner":""}`, fails: true},
		{name: "the host's ids", text: `{"version":1,"path":"/a","inode":7,"spans":[{"first":0,"size":65536}],"owner":""}`, fails: true},
		{name: "beyond all ids", text: `{"version":1,"path":"/a","inode":7,"spans":[{"first":4294967295,"size":1}],"owner":""}`, fails: true},
		{name: "two", text: `{"version":1,"path":"/a","inode":7,"spans":[{"first":65536,"size":65536}],"owner":""}{}`, fails: true},
		{name: "nothing", fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got, err := parseState([]byte(test.text)); (err != nil) != test.fails {
				t.Errorf("read as %+v, %v", got, err)
			}
		})
	}
}

// TestStateTargets: a state names every range that ids may be in, until a run has
// emptied it.
func TestStateTargets(t *testing.T) {
	t.Parallel()
	a, b, c := idmap.Span{First: 65536, Size: 65536}, idmap.Span{First: 131072, Size: 65536}, idmap.Span{First: 196608, Size: 65536}
	var s State
	s = s.towards(a)
	if s.reached(a, "boot") {
		t.Error("reached before it was complete")
	}
	s = s.settled(nil, "boot")
	if !s.reached(a, "boot") || s.reached(a, "later") || s.reached(b, "boot") {
		t.Errorf("after the first run: %+v", s)
	}
	s = s.towards(b).towards(c).towards(b) // killed twice
	if want := []idmap.Span{a, c, b}; !reflect.DeepEqual(s.Spans, want) || s.Complete != "" {
		t.Errorf("after three unfinished runs: %+v, want %v", s, want)
	}
	s = s.settled(map[idmap.Span]bool{c: true}, "boot")
	if want := []idmap.Span{c, b}; !reflect.DeepEqual(s.Spans, want) || !s.reached(b, "boot") {
		t.Errorf("at the end: %+v, want %v", s, want)
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"version":1,"path":"/var/a","inode":7,"birth":8,"spans":[{"first":65536,"size":65536}],"complete":"b","owner":"default/a"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseState(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseState(again); err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%q is read as %+v, then as %+v, %v", data, s, got, err)
		}
	})
}
