// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
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
	write("loop", "#!/bin/sh\nexec /loop\n")
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
		{name: "script that execs itself", args: []string{"/loop"}},
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
