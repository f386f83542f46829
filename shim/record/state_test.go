// SPDX-License-Identifier: Apache-2.0

package record

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

func TestStatedPID(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]int{
		`{"id":"c","init_process_pid":70,"init_process_start":12,"config":{}}`:                 70,
		"{\n    \"pid\": 71,\n    \"process-start-time\": 12,\n    \"cgroup-path\": \"/c\"\n}": 71,
		`{"id":"c","cgroup_paths":{"pid":"x"},"created":"now","pid":72}`:                       72,
		`{"init_process_pid":73,"config":`:                                                     73, // the rest is not read
		`{}`:                                                                                   0,
	} {
		if got, err := statedPID(strings.NewReader(state)); got != want || err != nil {
			t.Errorf("%s: %d, %v", state, got, err)
		}
	}
	for _, state := range []string{"", "{", "[1]", `{"pid":"x"}`, `{"id":"c"`, `{"config":{"pid":1`} {
		if got, err := statedPID(strings.NewReader(state)); err == nil {
			t.Errorf("%q: %d", state, got)
		}
	}
}

// A runtime whose state names a process of the host is not asked to delete.
func TestStateOfForeignProcess(t *testing.T) {
	t.Parallel()
	own, err := proc.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	id := own.ID()
	called := filepath.Join(t.TempDir(), "called")
	for _, c := range []struct {
		name, file, state string
		init              *proc.ID
		deletes           bool
	}{
		{"one that was never proved", "state.json", `{"init_process_pid":` + pid() + `}`, nil, false},
		{"that of crun", "status", `{"pid":` + pid() + `}`, nil, false},
		{"another than was proved", "status", `{"pid":` + pid() + `}`, &proc.ID{PID: 1, Start: 1}, false},
		{"a later one than was proved", "status", `{"pid":` + pid() + `}`, &proc.ID{PID: id.PID, Start: id.Start - 1}, false},
		{"one that was proved", "status", `{"pid":` + pid() + `}`, &id, true},
		{"one that was proved and has ended", "status", `{"pid":4194304}`, &proc.ID{PID: 1 << 22, Start: 1}, true},
		{"one that has ended and was never proved", "status", `{"pid":4194304}`, nil, false},
		{"its own group", "status", `{"pid":0}`, nil, false},
		{"unreadable", "status", `{"pid`, nil, false},
		{"none", "other", ``, nil, true},
	} {
		r := sample(t.TempDir())
		r.Init = c.init
		r.Runtime.Root = t.TempDir()
		r.Runtime.Path = filepath.Join(t.TempDir(), "runtime")
		dir := filepath.Join(r.Runtime.Root, r.Namespace, r.ID)
		script := "#!/bin/sh\ntouch " + called + "\nrm -r " + dir + "\n"
		if err := testprogram.Write(r.Runtime.Path, script); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.state), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := r.StopRuntime(t.Context()); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := os.Lstat(dir); err == nil {
			t.Errorf("%s: the runtime's state is left", c.name)
		}
		if err := os.Remove(called); (err == nil) != c.deletes {
			t.Errorf("%s: whether the runtime was asked: %v", c.name, err)
		}
	}
}

func pid() string { return strconv.Itoa(os.Getpid()) }
