// SPDX-License-Identifier: Apache-2.0

package chown

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

var someEntries = []entry{
	{Paths: [][]byte{[]byte(".")}, attributes: attributes{Mode: 0o041777}},
	{Paths: [][]byte{[]byte("usr/bin/su")}, attributes: attributes{Mode: 0o104755, UID: 0, GID: 0}},
	{Paths: [][]byte{[]byte("a\n\xff\"b"), []byte("c/d")}, attributes: attributes{Mode: 0o100644, UID: 70000, Capability: []byte{1, 2}, Access: []byte{3}, Default: []byte{4}}},
}

func TestJournal(t *testing.T) {
	t.Parallel()
	data, err := encodeJournal(someEntries)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseJournal(data)
	if err != nil || !reflect.DeepEqual(got, someEntries) {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, text := range map[string]string{
		"cut off":       strings.TrimSuffix(string(data), "\n"),
		"no path":       `{"mode":33188,"uid":0,"gid":0}` + "\n",
		"way out":       `{"paths":["Li4vYQ=="],"mode":33188}` + "\n", // ../a
		"way out below": `{"paths":["YS8uLi9i"],"mode":33188}` + "\n", // a/../b
		"absolute":      `{"paths":["L2V0Yw=="],"mode":33188}` + "\n", // /etc
		"no name":       `{"paths":[""],"mode":33188}` + "\n",
		"zero byte":     `{"paths":["YQBi"],"mode":33188}` + "\n",
		"strange mode":  `{"paths":["YQ=="],"mode":4294967295}` + "\n",
		"unknown key":   `{"paths":["YQ=="],"mode":33188,"size":1}` + "\n",
		"empty value":   `{"paths":["YQ=="],"mode":33188,"access":""}` + "\n",
		"two on a line": `{"paths":["YQ=="],"mode":33188}{"paths":["YQ=="],"mode":33188}` + "\n",
		"no JSON":       "?\n",
	} {
		if got, err := parseJournal([]byte(text)); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

func FuzzJournal(f *testing.F) {
	data, err := encodeJournal(someEntries)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"paths":["Li4vYQ=="],"mode":33188}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseJournal(data)
		if err != nil {
			return
		}
		for _, e := range entries {
			for _, p := range e.Paths {
				if bytes.HasPrefix(p, []byte("/")) || bytes.Contains(append(append([]byte("/"), p...), '/'), []byte("/../")) {
					t.Errorf("path %q leads out", p)
				}
			}
		}
		again, err := encodeJournal(entries)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseJournal(again); err != nil || !reflect.DeepEqual(got, entries) {
			t.Errorf("%q is read as %+v, then as %+v, %v", data, entries, got, err)
		}
	})
}
