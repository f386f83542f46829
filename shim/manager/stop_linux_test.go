// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
)

// stopper counts how often the runtime would have been asked to delete.
type stopper struct {
	shim.Shim
	asked int
}

func (s *stopper) Stop(context.Context, string) (shim.StopStatus, error) {
	s.asked++
	return shim.StopStatus{Pid: 7}, nil
}

func TestStopAsksTheRuntimeOnlyForWhatItHas(t *testing.T) {
	t.Parallel()
	const id = "a"
	for _, c := range []struct {
		name  string
		state bool // the runtime has state for the container
		exit  string
		want  shim.StopStatus
		asked int
	}{
		{"state left", true, "", shim.StopStatus{Pid: 7}, 1},
		{"none", false, "", shim.StopStatus{ExitStatus: 137}, 0},
		{"none, status recorded", false, `{"pid":5,"status":3,"timestamp":"2026-01-02T03:04:05Z"}`, shim.StopStatus{Pid: 5, ExitStatus: 3}, 0},
		{"none, status unreadable", false, `{`, shim.StopStatus{ExitStatus: 137}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bundle, root := t.TempDir(), t.TempDir()
			files := map[string]string{"options.json": `{"root":"` + root + `"}`}
			if c.exit != "" {
				files["exit.json"] = c.exit
			}
			write(t, bundle, files)
			if c.state {
				if err := os.MkdirAll(filepath.Join(root, "test", id), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			inner := &stopper{}
			got, err := manager{inner}.stopRuntime(namespaces.WithNamespace(t.Context(), "test"), "test", id, bundle)
			if err != nil {
				t.Fatal(err)
			}
			if got.Pid != c.want.Pid || got.ExitStatus != c.want.ExitStatus || inner.asked != c.asked {
				t.Errorf("got %+v after %d calls of the runtime", got, inner.asked)
			}
			if c.want.Pid != 7 && got.ExitedAt.IsZero() {
				t.Error("no time of exit")
			}
		})
	}
}

func TestStopReportsUnreadableOptions(t *testing.T) {
	t.Parallel()
	bundle := t.TempDir()
	write(t, bundle, map[string]string{"options.json": "{"})
	if _, err := (manager{&stopper{}}).stopRuntime(t.Context(), "test", "a", bundle); err == nil {
		t.Error("no error")
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
