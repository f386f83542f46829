// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/proc"
)

func sample(root string) *Record {
	return &Record{
		Version: Version, Namespace: "default", ID: "c1", Bundle: "/run/b/c1", Mode: "own",
		Mapping: idmap.Contiguous(1879048192, 65536),
		Lease:   &idmap.Span{First: 1879048192, Size: 65536},
		Runtime: Runtime{Path: "/usr/bin/runc", Version: "1.5.0"},
		Init:    &proc.ID{PID: 7, Start: 99},
		Stages:  Stages{{"decide", 1200000}, {"runtime", 30100000}},
		root:    root,
	}
}

func TestSaveLoadList(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	want := sample(root)
	if err := want.Save(); err != nil {
		t.Fatal(err)
	}
	got, err := load(root, "default", "c1")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if text := got.Stages.String(); text != "decide 1.2, runtime 30.1" {
		t.Errorf("the log would have %q", text)
	}
	// A broken neighbour is reported and does not hide the others.
	broken := filepath.Join(root, "default", "c2")
	if err := os.MkdirAll(broken, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, file), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := list(root)
	if err == nil || len(all) != 1 || all[0].ID != "c1" {
		t.Errorf("got %v, %v; want c1 and an error about c2", all, err)
	}
}

func TestCleanupTwice(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := sample(root)
	unlock, err := lock(t.Context(), root, r.Namespace, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Save(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Cleanup(nil); err != nil {
			t.Fatal(err)
		}
	}
	unlock()
	if _, err := load(root, "default", "c1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	left, err := os.ReadDir(root)
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// A full disk leaves nothing half written, and nothing where there was nothing.
func TestSaveThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := sample(root)
	d, err := r.Dir()
	if err != nil {
		t.Fatal(err)
	}
	// A directory in the record's place cannot be replaced by a file.
	blocked := filepath.Join(d, file)
	if err := os.MkdirAll(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.Save(); err == nil {
		t.Fatal("no error")
	}
	if left, err := os.ReadDir(d); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	if err := r.Save(); err != nil {
		t.Error(err)
	}
}

// What is not ours, under a directory of ours, is not deleted.
func TestCleanupKeepsForeignFiles(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := sample(root)
	unlock, err := lock(t.Context(), root, r.Namespace, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Save(); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(root, "default", "c1", "precious")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Cleanup(nil); err != nil {
		t.Error(err)
	}
	unlock()
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"no version":      `{"namespace":"n","id":"i","bundle":"/b"}`,
		"no object":       `[]`,
		"cut off":         `{"version":1,"namespace":"n","id":"i","bundle":"/b"`,
		"path as id":      `{"version":1,"namespace":"n","id":"../x","bundle":"/b"}`,
		"hidden name":     `{"version":1,"namespace":".ids","id":"i","bundle":"/b"}`,
		"relative bundle": `{"version":1,"namespace":"n","id":"i","bundle":"b"}`,
		"climbing bundle": `{"version":1,"namespace":"n","id":"i","bundle":"/b/../etc"}`,
		"climbing cgroup": `{"version":1,"namespace":"n","id":"i","bundle":"/b","cgroups":["/sys/fs/cgroup/a/.."]}`,
		"relative cgroup": `{"version":1,"namespace":"n","id":"i","bundle":"/b","cgroups":["a"]}`,
	} {
		if _, err := Parse([]byte(in)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A rollback must not strand what a later isolate has mounted.
func TestParseLaterVersion(t *testing.T) {
	t.Parallel()
	const later = `{"version":2,"namespace":"n","id":"i","bundle":"/b","rootfs":true,"shiny":{"x":1},"runtime":{"path":"/r","shiny":1},"init":{"pid":7,"start":9,"shiny":1}}`
	r, err := Parse([]byte(later))
	if err != nil || r.ID != "i" || !r.Rootfs || r.Runtime.Path != "/r" || *r.Init != (proc.ID{PID: 7, Start: 9}) {
		t.Errorf("%+v, %v", r, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"namespace":"n","id":"i","bundle":"/b","lease":{"first":1,"size":2}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse(data)
		if err != nil {
			return
		}
		if d, err := r.Dir(); err != nil || filepath.Dir(filepath.Dir(d)) != Root {
			t.Fatalf("accepted record leaves %s: %s, %v", Root, d, err)
		}
	})
}
