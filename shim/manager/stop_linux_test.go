// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"

	"github.com/isolate-shim/isolate/internal/testprogram"
	"github.com/isolate-shim/isolate/shim/record"
)

// The runtime is asked to delete only what it has, and whatever is wrong, containerd
// gets the exit status and may use the id again.
func TestStopNeverStandsInTheWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		state bool // the runtime has state for the container
		files map[string]string
		want  shim.StopStatus
		asked bool
	}{
		{"state left", true, nil, shim.StopStatus{ExitStatus: 137}, true},
		{"runtime that fails", true, map[string]string{"fails": ""}, shim.StopStatus{ExitStatus: 137}, true},
		{"no runtime", true, map[string]string{"runtime": "/nope"}, shim.StopStatus{ExitStatus: 137}, false},
		{"none", false, nil, shim.StopStatus{ExitStatus: 137}, false},
		{"status recorded", false, map[string]string{"exit.json": `{"pid":5,"status":3,"timestamp":"2026-01-02T03:04:05Z"}`}, shim.StopStatus{Pid: 5, ExitStatus: 3}, false},
		{"status unreadable", false, map[string]string{"exit.json": "{"}, shim.StopStatus{ExitStatus: 137}, false},
		{"spec unreadable", true, map[string]string{"config.json": "{"}, shim.StopStatus{ExitStatus: 137}, true},
		{"no mapping", true, map[string]string{"config.json": `{"linux":{}}`}, shim.StopStatus{ExitStatus: 137}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bundle, root := t.TempDir(), t.TempDir()
			id := filepath.Base(filepath.Dir(bundle))
			runtime := filepath.Join(bundle, "r")
			state := filepath.Join(root, "isolate-test", id)
			files := map[string]string{"options.json": `{"root":"` + root + `"}`, "runtime": runtime}
			maps.Copy(files, c.files)
			write(t, bundle, files)
			script := "#!/bin/sh\necho >" + bundle + "/asked\n[ -e " + bundle + "/fails ] && exit 1\nrmdir " + state + "\n"
			if err := testprogram.Write(runtime, script); err != nil {
				t.Fatal(err)
			}
			if c.state {
				if err := os.MkdirAll(state, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			got := manager{}.stop(namespaces.WithNamespace(t.Context(), "isolate-test"), "isolate-test", id, bundle)
			if got.Pid != c.want.Pid || got.ExitStatus != c.want.ExitStatus || got.ExitedAt.IsZero() {
				t.Errorf("got %+v", got)
			}
			if _, err := os.Lstat(filepath.Join(bundle, "asked")); (err == nil) != c.asked {
				t.Errorf("whether the runtime was asked: %v", err)
			}
			if _, err := os.Lstat(state); err == nil {
				t.Error("the runtime's state is left")
			}
		})
	}
}

// TestNothingIsLeftWhenDeleteAnswers: the process ends with its answer, and what it has
// not done by then stays.
func TestNothingIsLeftWhenDeleteAnswers(t *testing.T) {
	t.Parallel()
	const ns = "isolate-test-answers"
	bundle, root := t.TempDir(), t.TempDir()
	state := filepath.Join(root, ns, "a")
	write(t, bundle, map[string]string{"options.json": `{"root":"` + root + `"}`, "runtime": filepath.Join(bundle, "r")})
	if err := testprogram.Write(filepath.Join(bundle, "r"), "#!/bin/sh\nrmdir "+state+"\n"); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := os.MkdirAll(state, 0o700); err != nil {
			t.Fatal(err)
		}
		manager{}.stop(namespaces.WithNamespace(t.Context(), ns), ns, "a", bundle)
		if _, err := os.Lstat(filepath.Join(record.Root, ns)); err == nil {
			t.Fatal("delete has answered, and the namespace's directory is still there")
		}
	}
	// A shim that is killed beside its record leaves only the directory.
	if err := os.MkdirAll(filepath.Join(record.Root, ns, "a"), 0o711); err != nil {
		t.Fatal(err)
	}
	manager{}.stop(namespaces.WithNamespace(t.Context(), ns), ns, "a", bundle)
	if _, err := os.Lstat(filepath.Join(record.Root, ns)); err == nil {
		t.Error("the directory of a killed shim is left")
	}
}

func TestBundleOf(t *testing.T) {
	cwd := t.TempDir()
	t.Chdir(cwd)
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"named", []string{"-id", "a", "-bundle", "/state/default/a", "delete"}, "/state/default/a"},
		{"another one's of the pod", []string{"-id", "a", "-bundle", "/state/default/pod", "delete"}, "/state/default/a"},
		{"directory", []string{"-id", "a", "delete"}, filepath.Join(filepath.Dir(cwd), "a")},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := bundleOf(c.args, "a")
			if err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
	// containerd removes the bundle of a failed create while `delete` runs.
	if err := os.Remove(cwd); err != nil {
		t.Fatal(err)
	}
	if got, err := bundleOf([]string{"-bundle", "/state/default/a", "delete"}, "a"); err != nil || got != "/state/default/a" {
		t.Errorf("without a working directory: %q, %v", got, err)
	}
}
