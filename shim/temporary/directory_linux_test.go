// SPDX-License-Identifier: Apache-2.0

package temporary

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	runc "github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/internal/linux/proc"
)

// files lists what is in the directories of all shims.
func files(t *testing.T, root string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, parent, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func missing(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%q is there: %v", path, err)
	}
}

// TestUse: upstream's files are in the shim's directory while somebody uses it, whatever
// happens to it meanwhile, and in the usual place before and after.
func TestUse(t *testing.T) {
	root, usual := filepath.Join(t.TempDir(), "run"), t.TempDir()
	t.Setenv("TMPDIR", usual)
	t.Setenv(variable, "")
	original, isSet = "", true
	execute := func() (during []string) {
		r := runc.Runc{Command: "true"}
		monitor := runc.Monitor
		defer func() { runc.Monitor = monitor }()
		runc.Monitor = looking{monitor, func(cmd *exec.Cmd) {
			during = files(t, root)
			if env := Environ(cmd.Env); env[len(env)-1] != variable+"=" || strings.Contains(strings.Join(env, " "), root) {
				t.Errorf("a runtime has the environment %q", env)
			}
		}}
		if err := r.Exec(context.Background(), "a", specs.Process{}, nil); err != nil {
			t.Error(err)
		}
		socket, err := runc.NewTempConsoleSocket()
		if err != nil {
			t.Fatal(err)
		}
		during = append(during, files(t, root)...)
		if err := socket.Close(); err != nil {
			t.Error(err)
		}
		return during
	}
	if got := execute(); len(got) > 0 {
		t.Errorf("before its use: %q", got)
	}
	first, err := Use(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	second, err := Use(root)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(root); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("isolate's directory, which containers' roots traverse: %v, %v", info, err)
	}
	for _, done := range []func(){first, second} {
		if got := execute(); len(got) != 2 {
			t.Errorf("a file and a socket are expected: %q", got)
		}
		done()
	}
	if got := execute(); len(got) > 0 {
		t.Errorf("after its use: %q", got)
	}
	missing(t, filepath.Join(root, parent))
	if left, err := os.ReadDir(usual); err != nil || len(left) > 0 {
		t.Errorf("in the usual place: %v, %v", left, err)
	}
}

// looking calls a function before each command.
type looking struct {
	runc.ProcessMonitor
	look func(*exec.Cmd)
}

func (l looking) Start(cmd *exec.Cmd) (chan runc.Exit, error) {
	l.look(cmd)
	return l.ProcessMonitor.Start(cmd)
}

// TestUseOfNoDirectory leaves upstream where it was.
func TestUseOfNoDirectory(t *testing.T) {
	root := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(root, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := os.Environ()
	if _, err := Use(root); err == nil {
		t.Error("there is a directory in a file")
	}
	if after := os.Environ(); !slices.Equal(before, after) {
		t.Errorf("the environment was %q and is %q", before, after)
	}
}

// TestSweep removes what dead shims have left, and not what one that lives may need.
func TestSweep(t *testing.T) {
	root := t.TempDir()
	dead := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := dead.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := proc.Open(dead.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	left := filepath.Join(root, parent, name(p.ID()), "pty1")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	sweep := func() {
		t.Helper()
		if err := Sweep(root); err != nil {
			t.Error(err)
		}
	}
	sweep()
	if _, err := os.Lstat(left); err != nil {
		t.Errorf("of a process that lives: %v", err)
	}
	done, err := Use(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Ended(-1); err != nil { // it may be a zombie as long as it likes
		t.Fatal(err)
	}
	sweep()
	missing(t, filepath.Dir(left))
	if _, err := os.Lstat(os.Getenv(variable)); err != nil {
		t.Errorf("of this process: %v", err)
	}
	done()
	sweep()
	missing(t, filepath.Join(root, parent))
	_ = dead.Wait() // it was killed
}
