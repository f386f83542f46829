// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/shim/config"
)

func TestJudgeHandler(t *testing.T) {
	t.Parallel()
	allow := config.Default()
	allow.Annotations.Allow = []string{"nesting", "size"}
	systemd := config.Default()
	systemd.Runtime.SystemdCgroup = true
	missing := errors.New("stat /x: no such file")
	own := handler{host.Handler{Name: "isolate", Type: host.RuntimeType}}
	viaRunc := handler{host.Handler{Name: "isolate", Type: runcType, Path: "/x/" + host.ShimName, Options: map[string]any{"BinaryName": "crun", "SystemdCgroup": false, "Root": ""}}}
	for _, c := range []struct {
		name    string
		handler handler
		edit    func(*surroundings)
		want    []Line // Reason and Fix are contained
	}{
		{"own type", own, nil, []Line{{"", OK, "starts /bin/" + host.ShimName + ", which uses runc 1.5.2 with the caller's cgroup driver", ""}}},
		{"runc's type", viaRunc, nil, []Line{{"", OK, `cgroup driver; options BinaryName = "crun"`, ""}}},
		{"path as type", handler{host.Handler{Name: "i", Type: "/usr/bin/" + host.ShimName}}, nil, []Line{{"", OK, "starts", ""}}},
		{"misspelt", handler{host.Handler{Name: "i", Type: "io.containerd.isolate.v2"}}, nil, []Line{{"", Failed, "look for containerd-shim-isolate-v2", host.RuntimeType}}},
		{"shim as OCI runtime", handler{host.Handler{Name: "i", Type: runcType, Options: map[string]any{"BinaryName": "/usr/bin/" + host.ShimName}}}, nil, []Line{{"", Failed, "BinaryName is for OCI runtimes", "remove BinaryName"}}},
		{"another program", handler{host.Handler{Name: "i", Type: host.RuntimeType, Path: "/bin/true"}}, nil, []Line{{"", Degraded, "/bin/true is another program", "remove runtime_path"}}},
		{"no shim", own, func(s *surroundings) { s.ShimErr = missing }, []Line{{"", Failed, "no such file", "install"}}},
		{"no runtime", own, func(s *surroundings) { s.RuntimeErr = missing }, []Line{{"", Failed, "no such file", "BinaryName"}}},
		{"options table", handler{host.Handler{Name: "i", Type: host.RuntimeType, Options: map[string]any{"SystemdCgroup": true}}}, func(s *surroundings) { s.HostSystemd = true }, []Line{{"", Degraded, "hostUsers: false", "remove the options table"}}},
		{"in effect", own, func(s *surroundings) { s.Running = &host.HandlerState{Known: true, UserNamespaces: true} }, []Line{{"", OK, "starts", ""}}},
		{"not in effect", own, func(s *surroundings) { s.Running = &host.HandlerState{} }, []Line{{"", Degraded, "does not know it", "restart containerd"}}},
		{"asked before the shim was there", own, func(s *surroundings) { s.Running = &host.HandlerState{Known: true} }, []Line{{"", Degraded, "hostUsers: false", "restart containerd"}}},
		{"systemd's kubelet", own, func(s *surroundings) { s.Driver = "systemd" }, []Line{{"", OK, "cgroup driver systemd", ""}}},
		{"systemd's kubelet, runc's type", viaRunc, func(s *surroundings) { s.Driver = "systemd" }, []Line{{"", OK, "cgroup driver systemd", ""}}},
		{"cgroupfs' kubelet", own, func(s *surroundings) { s.Driver, s.HostSystemd, s.Config = "cgroupfs", true, systemd }, []Line{{"", Failed, "pods cannot start", "systemd_cgroup = false"}}},
		{"no systemd", viaRunc, func(s *surroundings) { s.Config = systemd }, []Line{{"", Failed, "does not run on this host", "runtime.systemd_cgroup = false"}}},
		{"systemd everywhere", own, func(s *surroundings) { s.Driver, s.HostSystemd, s.Config = "systemd", true, systemd }, []Line{{"", OK, "cgroup driver systemd", ""}}},
		{"FUSE layers", handler{host.Handler{Name: "i", Type: host.RuntimeType, Snapshotter: "stargz"}}, nil, []Line{{"", Failed, "snapshotter stargz serves files by FUSE", "overlayfs"}}},
		{"own layers", handler{host.Handler{Name: "i", Type: host.RuntimeType, Snapshotter: "overlayfs"}}, nil, []Line{{"", OK, "starts", ""}}},
		{"annotations lost", own, func(s *surroundings) { s.Config = allow }, []Line{{"", Degraded, "io.containerd.isolate.nesting, io.containerd.isolate.size are allowed", `pod_annotations = ["io.containerd.isolate.*"]`}}},
		{"one lost", handler{host.Handler{Name: "i", Type: host.RuntimeType, Annotations: []string{"io.containerd.isolate.size", "["}}}, func(s *surroundings) { s.Config = allow }, []Line{{"", Degraded, "annotations io.containerd.isolate.nesting are", "pod_annotations"}}},
		{"none lost", handler{host.Handler{Name: "i", Type: host.RuntimeType, Annotations: []string{"io.containerd.isolate.*"}}}, func(s *surroundings) { s.Config = allow }, []Line{{"", OK, "starts", ""}}},
	} {
		s := surroundings{
			Who: "process 7", Config: config.Default(), Shim: "/bin/" + host.ShimName, Runtime: "runc 1.5.2",
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
	for _, other := range []host.Handler{{Name: "runc", Type: runcType}, {Name: "kata", Type: "io.containerd.kata.v2"}, {Name: "x", Type: "/opt/isolate/containerd-shim-x-v1"}, {}} {
		if (handler{other}).ours() {
			t.Errorf("%+v was taken for ours", other)
		}
	}
}

func TestStanza(t *testing.T) {
	t.Parallel()
	const file = "/etc/containerd/config.toml"
	for _, c := range []struct {
		name    string
		file    string
		written string
		major   int
		want    []string
	}{
		{"new file", file, "", 2, []string{"to " + file, "\nversion = 3\n", "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.isolate]\n", "runtime_type = \"io.containerd.isolate.v1\""}},
		{"new file of 1.7", file, "", 1, []string{"\nversion = 2\n", "runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n[plugins.\"io.containerd.grpc.v1.cri\""}},
		{"version 2", file, "version = 2", 2, []string{"io.containerd.grpc.v1.cri"}},
		{"1.7 with runc", file, "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\n", 1, []string{":\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.isolate]"}},
		{"version 4", file, "version = 4", 2, []string{"io.containerd.cri.v1.runtime"}},
		{"k3s", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml", "version = 3", 2, []string{"containerd/config-v3.toml.tmpl", `{{ template "base" . }}`, "io.containerd.cri.v1.runtime"}},
		{"k3s with drop-ins", "/data/agent/etc/containerd/config.toml", "# File generated by k3s. DO NOT EDIT. Use config-v3.toml.tmpl instead.\nversion = 3\nimports = ['/data/agent/etc/containerd/config-v3.toml.d/*.toml']", 2, []string{"to /data/agent/etc/containerd/config-v3.toml.d/isolate.toml", "io.containerd.cri.v1.runtime"}},
		{"RKE2 of 1.7", "/var/lib/rancher/rke2/agent/etc/containerd/config.toml", "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\n", 1, []string{"containerd/config.toml.tmpl", `{{ template "base" . }}`, "io.containerd.grpc.v1.cri"}},
		{"MicroK8s", "/var/snap/microk8s/current/args/containerd.toml", "version = 2", 2, []string{"to /var/snap/microk8s/current/args/containerd-template.toml", "io.containerd.grpc.v1.cri"}},
	} {
		written := filepath.Join(t.TempDir(), "f")
		if c.written != "" {
			if err := os.WriteFile(written, []byte(c.written), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		text, config := readWritten(written)
		got := stanza(host.File{Name: c.file, Text: text}, config, c.major)
		for _, part := range c.want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: %q is not in %q", c.name, part, got)
			}
		}
		if c.written != "" && !strings.Contains(got, "isolate.toml") && strings.Contains(got, "\nversion") {
			t.Errorf("%s: a second version in %q", c.name, got)
		}
	}
	dir := t.TempDir()
	for body, want := range map[string]int{"": 1, "version = 3\n": 3, "nonsense": 1} {
		f := filepath.Join(dir, "f")
		if err := os.WriteFile(f, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, got := readWritten(f); got == nil || got.Version() != want {
			t.Errorf("%q has version %d, want %d", body, got.Version(), want)
		}
	}
}

func FuzzHandlers(f *testing.F) {
	f.Add([]byte("version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.x]\nruntime_type = 'io.containerd.isolate.v1'\npod_annotations = ['[']\noptions = 3"))
	f.Add([]byte("[plugins.'io.containerd.grpc.v1.cri'.containerd]\nruntimes = [1]"))
	f.Fuzz(func(t *testing.T, dump []byte) {
		c, err := host.ParseConfig(dump)
		if err != nil {
			return
		}
		cfg := config.Default()
		cfg.Annotations.Allow = []string{"size"}
		for _, h := range c.Handlers() {
			if lines := (handler{h}).judge(surroundings{Config: cfg, Shim: "/s"}); len(lines) == 0 {
				t.Errorf("nothing is said of %+v", h)
			}
		}
		stanza(host.File{Name: "/c.toml"}, c, 2)
		lost(c)
	})
}
