// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

// A container's daemon is none of the host's, and a program that a container
// may have put there is never run.
func TestProcessesOfContainers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	evil := filepath.Join(dir, "ran")
	exe := script(t, dir, "containerd", "touch "+evil+"; echo containerd x v2.4.2")
	copied := script(t, dir, "copy", "touch "+evil+"; echo containerd x v2.4.2")
	for _, c := range []struct {
		name     string
		ns       map[string]string // other than ours
		exe      string            // what the link shows; "" for exe
		found    bool
		rootless bool
		runs     bool
	}{
		{"the host's", nil, "", true, false, true},
		{"a container's", map[string]string{"pid": "pid:[2]", "mnt": "mnt:[2]", "user": "user:[2]"}, "", false, false, false},
		{"a privileged container's", map[string]string{"pid": "pid:[2]"}, "", false, false, false},
		{"rootless", map[string]string{"user": "user:[2]", "mnt": "mnt:[2]"}, "", true, true, false},
		{"from a snap", map[string]string{"mnt": "mnt:[2]"}, "", true, false, true},
		{"of a container with the host's pids", map[string]string{"mnt": "mnt:[2]"}, copied, true, false, false},
	} {
		proc := fakeProc(t, "containerd", exe, []string{"containerd"}, nil)
		if err := os.Remove(filepath.Join(proc, "self")); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"pid", "mnt", "user"} {
			theirs := kind + ":[1]"
			link(t, theirs, filepath.Join(proc, "self/ns", kind))
			if other, ok := c.ns[kind]; ok {
				theirs = other
			}
			link(t, theirs, filepath.Join(proc, "42/ns", kind))
		}
		found := processes(proc, "containerd")
		if (len(found) == 1) != c.found {
			t.Errorf("%s: found %+v", c.name, found)
		}
		if len(found) == 0 {
			continue
		}
		p := found[0]
		if c.exe != "" {
			p.Exe = c.exe
		}
		_, err := p.run(t.Context(), "--version")
		if ran := os.Remove(evil) == nil; ran != c.runs || c.runs != (err == nil) || !c.runs && !errors.Is(err, errForeign) {
			t.Errorf("%s: ran %v, %v", c.name, ran, err)
		}
		if p.Rootless != c.rootless {
			t.Errorf("%s: rootless %v", c.name, p.Rootless)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("42 (a) b) S 7 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 250 0", "btime 1000\n")
	f.Add("1 (", "btime x")
	f.Fuzz(func(t *testing.T, stat, boot string) {
		if parent, started := parseStat(stat, boot); parent == 0 && !started.IsZero() && len(stat) < 20 {
			t.Errorf("a time from %q", stat)
		}
	})
}
