// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestInspectDocker asks a server of our own in the place of dockerd.
func TestInspectDocker(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "d") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, file := filepath.Join(dir, "s"), filepath.Join(dir, "daemon.json")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	answer := `{"ServerVersion": "29.1", "DockerRootDir": "/d", "Driver": "overlay2", "CgroupDriver": "systemd", "DefaultRuntime": "i",
		"Runtimes": {"i": {"path": ""}, "runc": {"path": "runc"}}, "SecurityOptions": ["name=userns"]}`
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/info" {
			fmt.Fprint(w, answer)
		}
	}))
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(fmt.Sprintf(`{"hosts": ["fd://", "unix://%s"], "containerd": "/c.sock", "runtimes": {"j": {"path": "/j"}, "i": {"runtimeType": "io.containerd.isolate.v1", "options": {"a": 1}}}}`, socket))
	p := Process{PID: 42, Args: []string{"dockerd", "--config-file", file}}
	want := Docker{
		Process: p, File: file, Containerd: "/c.sock", socket: socket,
		DockerInfo: DockerInfo{
			Version: "29.1", Root: "/d", Storage: "overlay2", Cgroups: "systemd", Default: "i", Security: []string{"name=userns"},
			Runtimes: map[string]DockerRuntime{"i": {Type: "io.containerd.isolate.v1", Options: map[string]any{"a": 1.0}}, "runc": {Path: "runc"}},
		},
	}
	if got, err := InspectDocker(t.Context(), p); err != nil || !reflect.DeepEqual(got, want) || !got.MapsIDs() {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	p.PID = 0
	if got, err := InspectDocker(t.Context(), p); err != nil || got.Version != "" || len(got.Runtimes) != 2 || got.Runtimes["j"].Path != "/j" {
		t.Errorf("of one that does not run: %+v, %v", got, err)
	}
	p.PID = 42
	p.Args = append(p.Args, "-H", "unix://"+socket+"2")
	if _, err := InspectDocker(t.Context(), p); err == nil || !strings.Contains(err.Error(), socket+"2") {
		t.Errorf("of one that does not answer: %v", err)
	}
	write(`{"runtimes": []}`)
	if _, err := InspectDocker(t.Context(), p); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("of a wrong file: %v", err)
	}
}
