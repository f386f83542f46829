// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestCompare counts what is more than before, by whose it is.
func TestCompare(t *testing.T) {
	before := Inventory{{mountKind, "tmpfs on /run"}: 1, {processKind, "containerd"}: 2}
	after := Inventory{
		{mountKind, "tmpfs on /run"}: 3, {processKind, "containerd"}: 1, {"pipe", "/run/containerd/fifo/1"}: 1,
		{"record", "/run/isolate/default/i1-a"}: 1, {"record", "/run/isolate/default/i1-a/record.json"}: 1,
	}
	left := Compare(before, after)
	want := []Left{
		{Thing{mountKind, "tmpfs on /run"}, 2, Shims},
		{Thing{"pipe", "/run/containerd/fifo/1"}, 1, Others},
		{Thing{"record", "/run/isolate/default/i1-a"}, 1, Shims},
	}
	if !reflect.DeepEqual(left, want) {
		t.Errorf("got %v, want %v", left, want)
	}
	if got := describe(Counts(left, Shims)); got != "2 mounts, 1 record" {
		t.Errorf("described as %q", got)
	}
}

// TestOf finds the life in the name of what is left of it.
func TestOf(t *testing.T) {
	for name, want := range map[string]bool{
		"/run/isolate/default/i1-a/stage":                 true,
		"/usr/bin/containerd-shim -id i1-b -address /c":   true,
		"/run/isolate/default/i11-a":                      false,
		"/sys/fs/cgroup/memory/default/i11-a i1-a":        true,
		"/run/containerd/s/3f9a0bi1-c2":                   false,
		"/run/containerd/s/3f9a0bb77ac2":                  false,
		"tmpfs isolate on /run/isolate/default/i21-a/x-y": false,
	} {
		if got := Of(Life{Index: 1}, name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

// TestFileKind sorts files by what they are for.
func TestFileKind(t *testing.T) {
	for path, want := range map[string]string{
		"/run/isolate/.notify/1234":                                        "listener",
		"/run/isolate/default/i1-a/record.json":                            "record",
		"/run/containerd/s/1234":                                           "socket",
		"/run/containerd/runc/default/i1-a/state.json":                     "runtime state",
		"/var/tmp/rig/n1/state/io.containerd.runtime.v2.task/default/i1-a": "bundle",
		"/var/tmp/rig/tmp/runc-process123":                                 "temporary file",
	} {
		if got := fileKind(path); got != want {
			t.Errorf("%q is %q, want %q", path, got, want)
		}
	}
}

// TestReport tells what is wrong and how to see it again.
func TestReport(t *testing.T) {
	r := Report{Shim: "isolate", Seed: 3, Took: time.Minute}
	faulty := Life{Index: 4, Kind: Plain, Faults: []Fault{{Name: KillShim}}}
	r.Add([]Outcome{{Life: faulty, Hit: []Name{KillShim}}, {Life: Life{Index: 5, Kind: Once}}}, nil)
	if !r.Clean() {
		t.Error("nothing is left, and it is not clean")
	}
	r.Add([]Outcome{{Life: faulty, Hit: []Name{KillShim}}}, []Left{{Thing{"listener", "/run/isolate/.notify/1"}, 1, Shims}})
	r.Add([]Outcome{{Life: Life{Index: 6}, Unusable: []string{"file exists"}}}, []Left{{Thing{"pipe", "/x"}, 2, Others}})
	if r.Clean() {
		t.Error("something is left, and it is clean")
	}
	var text strings.Builder
	r.Write(&text)
	for _, want := range []string{"4 lives in 1m0s, 2 of them hit by 2 faults", "shim killed                          2 of 2", "left by the shim                 1 listener\n", "clients   2 pipes\n", "again    1\n"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, &text)
		}
	}
	if all := strings.Join(r.Complaints, "\n"); !strings.Contains(all, ".notify/1\n  one of the lives:\n    4 plain") || !strings.Contains(all, "file exists\n  life 6") {
		t.Errorf("complaints:\n%s", all)
	}
}
