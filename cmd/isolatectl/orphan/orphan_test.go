// SPDX-License-Identifier: Apache-2.0

package orphan

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/pool"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/record"
)

// process starts a process that lives until stop is called.
func process(t *testing.T) (_ *proc.ID, stop func()) {
	t.Helper()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := proc.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	id := p.ID()
	return &id, func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Error(err)
		}
	}
}

// TestOnlyTheDeadIsRemoved has a container for each reason to keep state, and one for
// none. Looking changes nothing.
func TestOnlyTheDeadIsRemoved(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: undoing unmounts")
	}
	record.Root = t.TempDir()
	bundles := filepath.Join(t.TempDir(), "tasks")
	if err := os.MkdirAll(filepath.Join(bundles, "test", "known"), 0o755); err != nil {
		t.Fatal(err)
	}
	dead, stop := process(t)
	stop()
	alive, stop := process(t)
	defer stop()
	lease := idmap.Span{First: 1 << 24, Size: 65536}
	c := Collector{IDs: []pool.Entry{
		{Span: lease, Owner: pool.Owner{Namespace: "test", ID: "held"}, Held: true},
		{Span: idmap.Span{First: 1<<24 + 65536, Size: 65536}, InUse: "process 5 has its ids"},
	}}
	made := func(id string, init *proc.ID, edit func(*record.Record)) {
		t.Helper()
		r := &record.Record{Version: record.Version, Namespace: "test", ID: id, Bundle: filepath.Join(bundles, "test", id), Init: init}
		if edit != nil {
			edit(r)
		}
		if err := r.Save(); err != nil {
			t.Fatal(err)
		}
	}
	made("dead", dead, func(r *record.Record) { r.Lease = &lease }) // whose ids another one has by now
	made("never-ran", nil, nil)
	made("alive", alive, nil)
	made("known", dead, nil)
	made("held", dead, func(r *record.Record) { r.Lease = &lease })
	made("used", dead, func(r *record.Record) { r.Lease = &idmap.Span{First: 1<<24 + 65536, Size: 65536} })
	made("elsewhere", dead, func(r *record.Record) { r.Bundle = "/nonexistent/tasks/test/elsewhere" })
	made("unclear", nil, func(r *record.Record) {
		r.Runtime.Root = t.TempDir()
		if err := os.MkdirAll(filepath.Join(r.Runtime.Root, "test", "unclear"), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	made("busy", dead, nil)
	unlock, err := record.Lock(t.Context(), "test", "busy")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := os.MkdirAll(filepath.Join(record.Root, "test", "damaged"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(record.Root, "test", "damaged", "record.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}

	for _, p := range []*proc.ID{dead, alive} {
		if err := os.MkdirAll(filepath.Join(record.Root, ".tmp", fmt.Sprintf("%d-%d", p.PID, p.Start)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	temporary := filepath.Join(record.Root, ".tmp", fmt.Sprintf("%d-%d", dead.PID, dead.Start))

	want := map[string]string{
		"dead": "", "never-ran": "", "alive": "first process is alive", "held": "a shim holds its ids",
		"used": "process 5 has its ids", "unclear": "the runtime has state of it",
	}
	left := func() []string {
		entries, err := os.ReadDir(filepath.Join(record.Root, "test"))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	all := left()
	for _, remove := range []bool{false, true} {
		c.Remove = remove
		found, err := c.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "container damaged in namespace test") || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %v", err)
		}
		if len(found) != len(want)+1 {
			t.Fatalf("%+v", found)
		}
		if files := found[len(want)]; files != (Orphan{Files: temporary, Removed: remove}) {
			t.Errorf("%+v, want %q", files, temporary)
		}
		if dirs, err := os.ReadDir(filepath.Dir(temporary)); err != nil || (len(dirs) == 1) != remove {
			t.Errorf("temporary files: %v, %v", dirs, err)
		}
		for _, o := range found[:len(want)] {
			reason, ok := want[o.ID]
			if !ok || (reason == "") != (o.Kept == "") || !strings.Contains(o.Kept, reason) || o.Removed != (remove && reason == "") {
				t.Errorf("%+v, want %q", o, reason)
			}
		}
		if !remove && !slices.Equal(left(), all) {
			t.Errorf("looking has changed %q to %q", all, left())
		}
	}
	want["elsewhere"], want["known"], want["busy"], want["damaged"] = "kept", "kept", "kept", "kept"
	for id, reason := range want {
		if slices.Contains(left(), id) != (reason != "") {
			t.Errorf("%s: %q is left", id, left())
		}
	}
}
