// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/internal/testprogram"
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

// fakeProc is a /proc with one process.
func fakeProc(t *testing.T, comm, exe string, args, env []string) string {
	t.Helper()
	proc := t.TempDir()
	dir := filepath.Join(proc, "42")
	link(t, exe, filepath.Join(dir, "exe"))
	if err := os.Mkdir(filepath.Join(dir, "attr"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{
		"comm": comm + "\n", "cmdline": strings.Join(args, "\x00") + "\x00", "environ": strings.Join(env, "\x00") + "\x00",
		"attr/current": "snap.microk8s.daemon-containerd (enforce)\n\x00", "../meminfo": "",
		"stat": "42 (a) b) S 7 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 250 0", "../stat": "cpu 0\nbtime 1000\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return proc
}

func script(t *testing.T, dir, name, body string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := testprogram.Write(file, "#!/bin/sh\n"+body+"\n"); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestFind(t *testing.T) {
	t.Parallel()
	proc := fakeProc(t, "lxcfs", "/bin/true", []string{"lxcfs", "-l", "/l"}, []string{"A=b", "PATH=/x:/y"})
	found := Find(proc, "other", "lxcfs")
	want := Process{
		PID: 42, Parent: 7, Exe: "/bin/true", Args: []string{"lxcfs", "-l", "/l"}, Path: "/x:/y",
		Started: time.Unix(1000, 0).Add(2500 * time.Millisecond), proc: filepath.Join(proc, "42"),
	}
	if len(found) != 1 || !reflect.DeepEqual(found[0], want) {
		t.Errorf("got %+v, want %+v", found, want)
	}
	if label := want.Label(); label != "snap.microk8s.daemon-containerd (enforce)" {
		t.Errorf("label %q", label)
	}
	if found := Find(proc, "lxcf"); len(found) > 0 {
		t.Errorf("found %+v", found)
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
		{"the host's, seen from a pod", map[string]string{"1": "mnt:[3]", "mnt": "mnt:[3]"}, copied, true, false, true},
		{"the pod's own, seen from it", map[string]string{"1": "mnt:[3]"}, copied, true, false, false},
	} {
		proc := fakeProc(t, "containerd", exe, []string{"containerd"}, nil)
		for _, kind := range []string{"pid", "mnt", "user"} {
			theirs := kind + ":[1]"
			link(t, theirs, filepath.Join(proc, "self/ns", kind))
			if other, ok := c.ns[kind]; ok {
				theirs = other
			}
			link(t, theirs, filepath.Join(proc, "42/ns", kind))
		}
		if one, ok := c.ns["1"]; ok {
			link(t, one, filepath.Join(proc, "1/ns/mnt"))
			link(t, "/", filepath.Join(proc, "1/root"))
		}
		found := Find(proc, "containerd")
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
		_, err := p.Run(t.Context(), "--version")
		if ran := os.Remove(evil) == nil; ran != c.runs || c.runs != (err == nil) || !c.runs && !errors.Is(err, errForeign) {
			t.Errorf("%s: ran %v, %v", c.name, ran, err)
		}
		if p.Rootless != c.rootless {
			t.Errorf("%s: rootless %v", c.name, p.Rootless)
		}
	}
}

func FuzzStartTime(f *testing.F) {
	f.Add(uint64(250), "cpu 0\nbtime 1000\n")
	f.Add(uint64(1), "\nbtime x")
	f.Fuzz(func(t *testing.T, ticks uint64, boot string) {
		if started := startTime(ticks, boot); !started.IsZero() && !strings.Contains(boot, "btime ") {
			t.Errorf("a time from %q", boot)
		}
	})
}
