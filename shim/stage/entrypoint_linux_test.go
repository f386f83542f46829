// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestIsSystemd(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	write("usr/lib/systemd/systemd", "\x7fELF")
	write("usr/bin/bash", "\x7fELF")
	write("usr/sbin/busybox", "\x7fELF")
	write("usr/local/bin/entrypoint", "#!/bin/sh\n# exec /bin/nothing\nset -e\nfix_mount\nexec \"$@\"\n")
	write("start", "#!/bin/sh\nif true; then exec -a init /sbin/init; fi\n")
	link("usr/lib", "lib")
	link("usr/sbin", "sbin")
	link("/lib/systemd/systemd", "usr/sbin/init")
	link("../../../../../../etc/passwd", "escape")

	tests := []struct {
		name string
		args []string
		env  []string
		want bool
	}{
		{name: "absolute link", args: []string{"/sbin/init"}, want: true},
		{name: "the binary", args: []string{"/lib/systemd/systemd", "--unit=x"}, want: true},
		{name: "by PATH", args: []string{"init"}, env: []string{"PATH=/usr/bin:/sbin"}, want: true},
		{name: "not in PATH", args: []string{"init"}, env: []string{"PATH=/usr/bin"}},
		{name: "entry point with argument", args: []string{"entrypoint", "/sbin/init"}, want: true},
		{name: "entry point with another", args: []string{"entrypoint", "bash"}},
		{name: "script that execs it", args: []string{"/start"}, want: true},
		{name: "sh -c", args: []string{"bash", "-c", "exec /sbin/init"}, env: []string{"PATH=/usr/bin"}, want: true},
		{name: "a shell", args: []string{"bash"}, env: []string{"PATH=/usr/bin"}},
		{name: "link out of the rootfs", args: []string{"/escape"}},
		{name: "nothing", args: nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := IsSystemd(root, &specs.Process{Args: tt.args, Env: tt.env, Cwd: "/"})
			if err != nil || got != tt.want {
				t.Errorf("got %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

// Any rename or mount on the machine makes the kernel answer EAGAIN to the ".." of
// a link, which says nothing about the file.
func TestSystemdIsRecognisedWhileFilesAreRenamed(t *testing.T) {
	t.Parallel()
	root, elsewhere := t.TempDir(), t.TempDir()
	for _, dir := range []string{"lib/systemd", "sbin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a, b := filepath.Join(elsewhere, "a"), filepath.Join(elsewhere, "b")
	for _, file := range []string{filepath.Join(root, "lib/systemd/systemd"), a} {
		if err := os.WriteFile(file, []byte("\x7fELF"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../lib/systemd/systemd", filepath.Join(root, "sbin/init")); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			if os.Rename(a, b) != nil || os.Rename(b, a) != nil {
				return
			}
		}
	}()
	for range 1000 {
		if got, err := IsSystemd(root, &specs.Process{Args: []string{"/sbin/init"}, Cwd: "/"}); err != nil || !got {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	stop.Store(true)
	<-done
}

// An image's maker has a free hand in what the shim reads before the container
// exists, in nobody's limits.
func TestEntryPointIsReadInBoundedTime(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write := func(name, line string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, name), []byte("#!/bin/sh\n"+strings.Repeat(line+"\n", 6000)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("a", "exec /b")
	write("b", "exec /c")
	write("c", "sleep 1")
	write("loop", "exec /loop")
	write("args", "exec nothing "+strings.Repeat(`"$@" `, 10))
	if err := os.WriteFile(filepath.Join(root, "sh"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, proc := range map[string]*specs.Process{
		"scripts that name scripts": {Args: []string{"/a"}},
		"a script of itself":        {Args: []string{"/loop"}},
		"arguments":                 {Args: append([]string{"/args"}, slices.Repeat([]string{"x"}, 10000)...)},
		"directories of PATH":       {Args: []string{"nothing"}, Env: []string{"PATH=" + strings.Repeat("/x:", 40000)}},
		"a shell of itself":         {Args: []string{"/sh", "-c", `exec /sh "$@"`}},
	} {
		began := time.Now()
		if _, err := IsSystemd(root, proc); !errors.Is(err, ErrUnclear) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
}

// Not to be able to look is no "no".
func TestEntryPointThatCannotBeLookedUp(t *testing.T) {
	t.Parallel()
	_, err := IsSystemd(t.TempDir(), &specs.Process{Args: []string{"/a\x00b"}})
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}
}

func FuzzExecuted(f *testing.F) {
	f.Add("#!/bin/sh\nexec \"$@\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, command := range executed(text, []string{"init"}) {
			if len(command) == 0 {
				t.Fatal("empty command")
			}
		}
	})
}

func TestAttribute(t *testing.T) {
	t.Parallel()
	for option, want := range map[string][2]any{
		"ro":  {attributes["ro"], false},
		"rro": {attributes["ro"], true},
		// relatime begins with an r of its own.
		"relatime":  {attributes["relatime"], false},
		"rrelatime": {attributes["relatime"], true},
		"rnosuid":   {attributes["nosuid"], true},
	} {
		attr, all := attribute(option)
		if got := [2]any{attr, all}; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", option, got, want)
		}
	}
}
