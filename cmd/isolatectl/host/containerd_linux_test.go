// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestCommandLineOverConfig(t *testing.T) {
	t.Parallel()
	at := func(file, root, address string) Containerd {
		return Containerd{File: file, Root: root, Address: address}
	}
	for _, c := range []struct {
		name string
		args []string
		dump string
		want Containerd
	}{
		{"nothing said", []string{"/usr/bin/containerd"}, "", at("/etc/containerd/config.toml", "/var/lib/containerd", "/run/containerd/containerd.sock")},
		{"flags", []string{"containerd", "-c", "/c.toml", "--root=/r/", "-address", "/a.sock", "--log-level", "debug"}, "", at("/c.toml", "/r", "/a.sock")},
		{"Docker's", []string{"containerd", "--config", "/var/run/docker/containerd/containerd.toml"}, "root = '/var/lib/docker/containerd/daemon'\n[grpc]\naddress = '/var/run/docker/containerd/containerd.sock'", at("/var/run/docker/containerd/containerd.toml", "/var/lib/docker/containerd/daemon", "/var/run/docker/containerd/containerd.sock")},
		{"version 4", []string{"containerd"}, "version = 4\nroot = '/r'\n[plugins.'io.containerd.server.v1.grpc']\naddress = '/x.sock'", at("/etc/containerd/config.toml", "/r", "/x.sock")},
		{"flags win over the file", []string{"containerd", "--root", "/var/lib/containerd"}, "root = '/other'", at("/etc/containerd/config.toml", "/var/lib/containerd", "/run/containerd/containerd.sock")},
		{"flag without value", []string{"containerd", "--root"}, "", at("/etc/containerd/config.toml", "/var/lib/containerd", "/run/containerd/containerd.sock")},
	} {
		d := Containerd{Process: Process{Args: c.args}}.with(config(t, c.dump))
		d.Process, d.Effective = Process{}, nil
		if !reflect.DeepEqual(d, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.name, d, c.want)
		}
	}
}

// only is the one process of that name.
func only(t *testing.T, proc, comm string) Process {
	t.Helper()
	found := Find(proc, comm)
	if len(found) != 1 || found[0].PID != 42 {
		t.Fatalf("processes %+v", found)
	}
	return found[0]
}

func TestInspectContainerd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	exe := script(t, dir, "containerd", `case "$*" in
--version) echo containerd github.com/containerd/containerd/v2 v2.4.2 x ;;
"--config `+conf+` config dump") echo 'root = "/srv/containerd"' ;;
*) exit 1 ;;
esac`)
	proc := fakeProc(t, "containerd", exe, []string{"containerd", "--config", conf}, []string{"A=b", "PATH=/x:/y"})
	p := only(t, proc, "containerd")
	d, err := InspectContainerd(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	p.Path = "/opt/containerd/bin:/x:/y"
	want := Containerd{
		Process: p, Version: "v2.4.2", File: conf, Root: "/srv/containerd", Address: DefaultAddress, Effective: Config{"root": "/srv/containerd"},
	}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("got  %+v\nwant %+v", d, want)
	}

	other := script(t, dir, "other", "echo something else")
	if _, err := InspectContainerd(t.Context(), only(t, fakeProc(t, "containerd", other, nil, nil), "containerd")); err == nil {
		t.Error("another program was taken for containerd")
	}
}
