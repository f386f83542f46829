// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/shim/config"
)

// The same handlers as containerd prints them, by version of the file.
func TestHandlers(t *testing.T) {
	t.Parallel()
	body := func(version, plugin string) string {
		return "version = " + version + "\n" + strings.ReplaceAll(`
[plugins.P.containerd]
default_runtime_name = 'runc'
snapshotter = 'old'
[plugins.P.containerd.runtimes.isolate]
runtime_type = 'io.containerd.isolate.v1'
pod_annotations = ['io.containerd.isolate.*', 3]
[plugins.P.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
snapshotter = 'native'
options = { SystemdCgroup = true, BinaryName = '' }
[plugins.P.containerd.runtimes]
odd = 3
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'new'
`, "P", "'"+plugin+"'")
	}
	isolate := handler{Name: "isolate", Type: runtimeName, Annotations: []string{"io.containerd.isolate.*"}}
	runc := handler{Name: "runc", Type: runcType, Snapshotter: "native", Options: map[string]any{"SystemdCgroup": true, "BinaryName": ""}}
	both := []handler{isolate, runc}
	for _, c := range []struct {
		name, dump string
		want       cri
	}{
		{"version 2", body("2", oldCRI), cri{Handlers: both, Default: "runc", Snapshotter: "old"}},
		{"version 3", body("3", criRuntime), cri{Handlers: both, Default: "runc", Snapshotter: "new"}},
		{"version 4", body("4", criRuntime), cri{Handlers: both, Default: "runc", Snapshotter: "new"}},
		{"old table in version 3", body("3", oldCRI), cri{Snapshotter: "new"}},
		{"new table in version 2", body("2", criRuntime), cri{}},
		{"migrated", body("3", criRuntime) + "\n[plugins.'" + oldCRI + "'.containerd.runtimes.isolate]\nruntime_type = 'io.containerd.isolate.v1'\n", cri{Handlers: both, Default: "runc", Snapshotter: "new"}},
		{"switched off", "version = 3\ndisabled_plugins = ['io.containerd.grpc.v1.cri']", cri{Off: true}},
		{"short name", "version = 2\ndisabled_plugins = ['cri']", cri{Off: true}},
	} {
		s, err := defaults().withDump([]byte(c.dump))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if !reflect.DeepEqual(s.CRI, c.want) {
			t.Errorf("%s: got  %+v\nwant %+v", c.name, s.CRI, c.want)
		}
		// In the file it is in each case that has it at all.
		w, err := parseWritten([]byte(c.dump))
		if has := strings.Contains(c.dump, ".isolate]"); err != nil || (w.lost() == "isolate") != has || w.has("isolate") != has || w.has("kata") {
			t.Errorf("%s: the file has %+v, %v", c.name, w, err)
		}
	}
}

func TestJudgeHandler(t *testing.T) {
	t.Parallel()
	allow := config.Default()
	allow.Annotations.Allow = []string{"nesting", "size"}
	systemd := config.Default()
	systemd.Runtime.SystemdCgroup = true
	missing := errors.New("stat /x: no such file")
	own := handler{Name: "isolate", Type: runtimeName}
	viaRunc := handler{Name: "isolate", Type: runcType, Path: "/x/" + shimName, Options: map[string]any{"BinaryName": "crun", "SystemdCgroup": false, "Root": ""}}
	for _, c := range []struct {
		name    string
		handler handler
		edit    func(*surroundings)
		want    []Line // Reason and Fix are contained
	}{
		{"own type", own, nil, []Line{{"", OK, "starts /bin/" + shimName + ", which uses runc 1.5.2 with cgroup driver cgroupfs", ""}}},
		{"runc's type", viaRunc, nil, []Line{{"", OK, `cgroupfs; options BinaryName = "crun"`, ""}}},
		{"path as type", handler{Name: "i", Type: "/usr/bin/" + shimName}, nil, []Line{{"", OK, "starts", ""}}},
		{"misspelt", handler{Name: "i", Type: "io.containerd.isolate.v2"}, nil, []Line{{"", Failed, "look for containerd-shim-isolate-v2", runtimeName}}},
		{"shim as OCI runtime", handler{Name: "i", Type: runcType, Options: map[string]any{"BinaryName": "/usr/bin/" + shimName}}, nil, []Line{{"", Failed, "BinaryName is for OCI runtimes", "remove BinaryName"}}},
		{"another program", handler{Name: "i", Type: runtimeName, Path: "/bin/true"}, nil, []Line{{"", Degraded, "/bin/true is another program", "remove runtime_path"}}},
		{"no shim", own, func(s *surroundings) { s.ShimErr = missing }, []Line{{"", Failed, "no such file", "install"}}},
		{"no runtime", own, func(s *surroundings) { s.RuntimeErr = missing }, []Line{{"", Failed, "no such file", "BinaryName"}}},
		{"options table", handler{Name: "i", Type: runtimeName, Options: map[string]any{"SystemdCgroup": true}}, func(s *surroundings) { s.HostSystemd = true }, []Line{{"", Degraded, "hostUsers: false", "remove the options table"}}},
		{"systemd's kubelet", own, func(s *surroundings) { s.Driver = "systemd" }, []Line{{"", OK, "cgroup driver systemd", ""}}},
		{"systemd's kubelet, runc's type", viaRunc, func(s *surroundings) { s.Driver = "systemd" }, []Line{{"", OK, "cgroup driver systemd", ""}}},
		{"cgroupfs' kubelet", own, func(s *surroundings) { s.Driver, s.HostSystemd, s.Config = "cgroupfs", true, systemd }, []Line{{"", Failed, "pods cannot start", "systemd_cgroup = false"}}},
		{"no systemd", viaRunc, func(s *surroundings) { s.Config = systemd }, []Line{{"", Failed, "does not run on this host", "runtime.systemd_cgroup = false"}}},
		{"systemd everywhere", own, func(s *surroundings) { s.Driver, s.HostSystemd, s.Config = "systemd", true, systemd }, []Line{{"", OK, "cgroup driver systemd", ""}}},
		{"FUSE layers", own, func(s *surroundings) { s.Snapshotter = "stargz" }, []Line{{"", Failed, "snapshotter stargz serves files by FUSE", "overlayfs"}}},
		{"own layers", handler{Name: "i", Type: runtimeName, Snapshotter: "overlayfs"}, func(s *surroundings) { s.Snapshotter = "stargz" }, []Line{{"", OK, "starts", ""}}},
		{"annotations lost", own, func(s *surroundings) { s.Config = allow }, []Line{{"", Degraded, "io.containerd.isolate.nesting, io.containerd.isolate.size are allowed", `pod_annotations = ["io.containerd.isolate.*"]`}}},
		{"one lost", handler{Name: "i", Type: runtimeName, Annotations: []string{"io.containerd.isolate.size", "["}}, func(s *surroundings) { s.Config = allow }, []Line{{"", Degraded, "annotations io.containerd.isolate.nesting are", "pod_annotations"}}},
		{"none lost", handler{Name: "i", Type: runtimeName, Annotations: []string{"io.containerd.isolate.*"}}, func(s *surroundings) { s.Config = allow }, []Line{{"", OK, "starts", ""}}},
	} {
		s := surroundings{
			Who: "process 7", Config: config.Default(), Shim: "/bin/" + shimName, Runtime: "runc 1.5.2", Snapshotter: "overlayfs",
		}
		if c.edit != nil {
			c.edit(&s)
		}
		if !c.handler.ours() {
			t.Errorf("%s: not taken for ours", c.name)
		}
		got := c.handler.judge(s)
		if !slices.EqualFunc(got, c.want, func(g, w Line) bool {
			return g.What == "CRI runtime "+c.handler.Name+", process 7" && g.Result == w.Result &&
				strings.Contains(g.Reason, w.Reason) && strings.Contains(g.Fix, w.Fix) && (g.Result == OK) == (g.Fix == "")
		}) {
			t.Errorf("%s: got  %+v\nwant %+v", c.name, got, c.want)
		}
	}
	for _, other := range []handler{{Name: "runc", Type: runcType}, {Name: "kata", Type: "io.containerd.kata.v2"}, {Name: "x", Type: "/opt/isolate/containerd-shim-x-v1"}, {}} {
		if other.ours() {
			t.Errorf("%+v was taken for ours", other)
		}
	}
}

func TestCgroupDriver(t *testing.T) {
	t.Parallel()
	options := func(on bool) map[string]any { return map[string]any{"SystemdCgroup": on} }
	for _, c := range []struct {
		name    string
		cri     cri
		systemd bool
		want    string
	}{
		{"nothing said", cri{}, false, "cgroupfs"},
		{"nothing said, systemd", cri{Handlers: []handler{{Name: "isolate", Type: runtimeName, Options: options(false)}}}, true, "systemd"},
		{"the default's", cri{Default: "runc", Handlers: []handler{{Name: "a", Type: runcType, Options: options(false)}, {Name: "runc", Type: runcType, Options: options(true)}}}, false, "systemd"},
		{"the first's", cri{Default: "isolate", Handlers: []handler{{Name: "b", Type: runcType, Options: options(true)}, {Name: "a", Type: runcType, Options: options(false)}, {Name: "isolate", Type: runtimeName}}}, true, "cgroupfs"},
	} {
		if got := c.cri.driver(c.systemd); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		kubelet    kubelet
		containerd int
		want       string
	}{
		{kubelet{}, 2, ""},
		{kubelet{Found: true, Version: "Kubernetes v1.36.3", Driver: "cgroupfs"}, 2, "systemd"},
		{kubelet{Found: true, Version: "Kubernetes v1.30.1", Driver: "cgroupfs"}, 2, "cgroupfs"},
		{kubelet{Found: true, Version: "Kubernetes v1.36.3", Driver: "cgroupfs"}, 1, "cgroupfs"},
		{kubelet{Found: true}, 2, ""},
	} {
		if got := c.kubelet.driver(c.containerd, "systemd"); got != c.want {
			t.Errorf("%+v: %q, want %q", c.kubelet, got, c.want)
		}
	}
}

func TestKubelet(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, file, driver string }{
		{"kubelet --config=/k.yaml -v 4", "/k.yaml", ""},
		{"kubelet --config /k.yaml --cgroup-driver systemd", "/k.yaml", "systemd"},
		{"kubelet --config", "", ""},
	} {
		if file, driver := kubeletFlags(strings.Fields(c.args)); file != c.file || driver != c.driver {
			t.Errorf("%s: %q %q", c.args, file, driver)
		}
	}
	for data, want := range map[string]string{
		"kind: KubeletConfiguration\ncgroupDriver: systemd # as systemd\nx: 1\n": "systemd",
		"cgroupDriver: \"cgroupfs\"\r\n":                                         "cgroupfs",
		"{\n  \"cgroupDriver\": \"systemd\",\n  \"x\": 1 }":                      "systemd",
		"kind: KubeletConfiguration\n# cgroupDriver: systemd\n":                  "",
		"": "",
	} {
		if got := kubeletDriver(data); got != want {
			t.Errorf("%q: %q, want %q", data, got, want)
		}
	}
}

func TestStanza(t *testing.T) {
	t.Parallel()
	const file = "/etc/containerd/config.toml"
	for _, c := range []struct {
		name    string
		file    string
		written written
		major   int
		want    []string
	}{
		{"new file", file, written{}, 2, []string{"to " + file, "\nversion = 3\n", "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.isolate]\n", "  runtime_type = 'io.containerd.isolate.v1'"}},
		{"new file of 1.7", file, written{}, 1, []string{"\nversion = 2\n", "runtimes.runc]\n  runtime_type = 'io.containerd.runc.v2'\n[plugins.'io.containerd.grpc.v1.cri'"}},
		{"version 2", file, written{Version: 2}, 2, []string{"io.containerd.grpc.v1.cri"}},
		{"1.7 with runc", file, written{2, []handler{{Name: "runc"}}}, 1, []string{":\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.isolate]"}},
		{"version 4", file, written{Version: 4}, 2, []string{"io.containerd.cri.v1.runtime"}},
		{"k3s", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml", written{Version: 3}, 2, []string{"containerd/config-v3.toml.tmpl", `{{ template "base" . }}`, "io.containerd.cri.v1.runtime"}},
	} {
		got := stanza(c.file, c.written, c.major)
		for _, part := range c.want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: %q is not in %q", c.name, part, got)
			}
		}
		if c.written.Version > 0 && strings.Contains(got, "\nversion") {
			t.Errorf("%s: a second version in %q", c.name, got)
		}
	}
	dir := t.TempDir()
	for body, want := range map[string]int{"": 1, "version = 3\n": 3, "nonsense": 1} {
		f := filepath.Join(dir, "f")
		if err := os.WriteFile(f, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := readWritten(f); got.Version != want {
			t.Errorf("%q has version %d, want %d", body, got.Version, want)
		}
	}
	if got := readWritten(filepath.Join(dir, "absent")); got.Version != 0 {
		t.Errorf("no file has version %d", got.Version)
	}
}

func FuzzHandlers(f *testing.F) {
	f.Add([]byte("version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.x]\nruntime_type = 'io.containerd.isolate.v1'\npod_annotations = ['[']\noptions = 3"))
	f.Add([]byte("[plugins.'io.containerd.grpc.v1.cri'.containerd]\nruntimes = [1]"))
	f.Fuzz(func(t *testing.T, dump []byte) {
		s, err := defaults().withDump(dump)
		if err != nil {
			return
		}
		cfg := config.Default()
		cfg.Annotations.Allow = []string{"size"}
		for _, h := range s.CRI.Handlers {
			if lines := h.judge(surroundings{Config: cfg, Shim: "/s"}); len(lines) == 0 {
				t.Errorf("nothing is said of %+v", h)
			}
		}
		s.CRI.driver(true)
		if w, err := parseWritten(dump); err == nil {
			stanza("/c.toml", w, 2)
			w.lost()
		}
	})
}

func FuzzKubelet(f *testing.F) {
	f.Add("kubelet\x00--config\x00/x", "cgroupDriver: systemd")
	f.Fuzz(func(t *testing.T, args, data string) {
		kubeletFlags(strings.Split(args, "\x00"))
		if got := kubeletDriver(data); strings.Contains(got, "\n") {
			t.Errorf("%q from %q", got, data)
		}
	})
}
