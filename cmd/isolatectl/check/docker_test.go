// SPDX-License-Identifier: Apache-2.0

package check

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/cmd/isolatectl/host"
	"github.com/isolate-shim/isolate/shim/config"
)

func TestJudgeDocker(t *testing.T) {
	t.Parallel()
	systemd := config.Default()
	systemd.Runtime.SystemdCgroup = true
	const file = "/etc/docker/daemon.json"
	with := func(info host.DockerInfo) docker {
		info.Version = cmp.Or(info.Version, "26.1.5")
		return docker{host.Docker{File: file, DockerInfo: info}}
	}
	runtimes := func(r host.DockerRuntime) docker {
		return with(host.DockerInfo{Runtimes: map[string]host.DockerRuntime{"mine": r, "runsc": {Path: "/runsc"}, "kata": {Type: "io.containerd.kata.v2"}}})
	}
	idle := func(r host.DockerRuntime) docker {
		d := runtimes(r)
		d.Version = ""
		return d
	}
	const who, entry = "Docker, process 7", "Docker runtime mine, process 7"
	good := Line{who, OK, "version 26.1.5, with containerd in process 8: docker run --runtime " + host.RuntimeType, ""}
	for _, c := range []struct {
		name   string
		docker docker
		edit   func(*dockerHost)
		want   []Line // Reason and Fix are contained
	}{
		{"no configuration", with(host.DockerInfo{}), nil, []Line{good}},
		{"by type", runtimes(host.DockerRuntime{Type: host.RuntimeType}), nil, []Line{{who, OK, host.RuntimeType + ", or mine", ""}}},
		{"by path of the type", runtimes(host.DockerRuntime{Type: "/bin/" + host.ShimName}), nil, []Line{{who, OK, ", or mine", ""}}},
		{"by a path that is not there", runtimes(host.DockerRuntime{Type: "/no/" + host.ShimName}), nil, []Line{{entry, Failed, "no such", `"runtimeType": "io.containerd.isolate.v1"`}, good}},
		{"as OCI runtime", runtimes(host.DockerRuntime{Path: "/bin/" + host.ShimName}), nil, []Line{{entry, Failed, "path is for OCI runtimes", `put "mine": {"runtimeType": "io.containerd.isolate.v1"} into runtimes of /etc/docker/daemon.json`}, good}},
		{"misspelt", runtimes(host.DockerRuntime{Type: "io.containerd.isolate.v2"}), nil, []Line{{entry, Failed, "containerd-shim-isolate-v2", host.RuntimeType}, good}},
		{"options lost", runtimes(host.DockerRuntime{Type: host.RuntimeType, Options: map[string]any{"BinaryName": "crun", "ConfigPath": "/c"}}), nil, []Line{{entry, Degraded, "does not pass on the options BinaryName", "ConfigPath"}, {who, OK, ", or mine", ""}}},
		{"default", with(host.DockerInfo{Default: host.RuntimeType}), nil, []Line{{who, OK, "which is the default", ""}}},
		{"too old", with(host.DockerInfo{Version: "20.10.24+dfsg1"}), nil, []Line{{who, Failed, "20.10.24+dfsg1 starts no shims", "Docker 23"}}},
		{"odd version", with(host.DockerInfo{Version: "dev"}), nil, []Line{{who, Degraded, "not understood", "Docker 23"}}},
		{"no shim", with(host.DockerInfo{}), func(h *dockerHost) { h.ShimErr = errors.New("not in /bin") }, []Line{{who, Failed, "with containerd in process 8, which does not find the shim: not in /bin", "PATH"}}},
		{"systemd", with(host.DockerInfo{Cgroups: "systemd"}), nil, []Line{good}},
		{"systemd agreed on", with(host.DockerInfo{Cgroups: "systemd"}), func(h *dockerHost) { h.Config = systemd }, []Line{good}},
		{"cgroupfs", with(host.DockerInfo{Cgroups: "cgroupfs"}), func(h *dockerHost) { h.Config = systemd }, []Line{{who, Failed, "cgroup driver is cgroupfs", "exec-opts of " + file}, good}},
		{"mapped by Docker", with(host.DockerInfo{Security: []string{"name=userns"}}), nil, []Line{{who, Degraded, "userns-remap: Docker maps", "remove userns-remap"}, good}},
		{"FUSE layers", with(host.DockerInfo{Storage: "fuse-overlayfs"}), nil, []Line{{who, Failed, "storage driver fuse-overlayfs serves files by FUSE", "overlay2"}, good}},
		{"not running", idle(host.DockerRuntime{Path: "/bin/" + host.ShimName}), nil, []Line{{entry, Failed, "path is for OCI runtimes", ""}}},
		{"not running and well", idle(host.DockerRuntime{Type: host.RuntimeType}), nil, nil},
	} {
		h := dockerHost{
			Who: "process 7", Containerd: "containerd in process 8", Config: config.Default(),
			Executable: func(file string) error {
				if strings.HasPrefix(file, "/no/") {
					return errors.New("no such file")
				}
				return nil
			},
		}
		if c.edit != nil {
			c.edit(&h)
		}
		got := c.docker.judge(h)
		if !slices.EqualFunc(got, c.want, func(g, w Line) bool {
			return g.What == w.What && g.Result == w.Result && strings.Contains(g.Reason, w.Reason) &&
				strings.Contains(g.Fix, w.Fix) && (g.Result == OK) == (g.Fix == "")
		}) {
			t.Errorf("%s: got  %+v\nwant %+v", c.name, got, c.want)
		}
	}
}

func FuzzDocker(f *testing.F) {
	f.Add([]byte(`{"ServerVersion": "29.1.0", "Runtimes": {"i": {"runtimeType": "io.containerd.isolate.v1", "options": {"a": 1}}}}`))
	f.Fuzz(func(_ *testing.T, answer []byte) {
		var d docker
		if json.Unmarshal(answer, &d.DockerInfo) == nil {
			d.judge(dockerHost{Executable: func(string) error { return nil }})
		}
	})
}
