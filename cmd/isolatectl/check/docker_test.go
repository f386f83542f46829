// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/shim/config"
)

func TestDockerSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, args, file string
		want             docker
	}{
		{"nothing said", "dockerd", "", docker{Config: "/etc/docker/daemon.json", DataRoot: "/var/lib/docker"}},
		{
			"file", "dockerd --config-file /d.json", `{"data-root": "/d", "containerd": "/c.sock", "default-runtime": "i", "userns-remap": "default", "storage-driver": "vfs",
			"exec-opts": ["native.cgroupdriver=systemd", "x"], "runtimes": {"i": {"runtimeType": "io.containerd.isolate.v1"}, "p": {"path": "/p", "runtimeArgs": ["a"]}}, "debug": true}`,
			docker{"/d.json", "/d", "/c.sock", "i", map[string]dockerRuntime{"i": {Type: runtimeName}, "p": {Path: "/p"}}, "default", "vfs", "systemd"},
		},
		{
			"flags", "dockerd --data-root=/d --containerd /c.sock --default-runtime i --userns-remap=u:g -s overlay2 --exec-opt native.cgroupdriver=cgroupfs --add-runtime i=/i --add-runtime=j=/j -H fd:// --add-runtime", "",
			docker{"/etc/docker/daemon.json", "/d", "/c.sock", "i", map[string]dockerRuntime{"i": {Path: "/i"}, "j": {Path: "/j"}}, "u:g", "overlay2", "cgroupfs"},
		},
		{
			"both", "dockerd --add-runtime i=/i", `{"runtimes": {"j": {"path": "/j"}}}`,
			docker{Config: "/etc/docker/daemon.json", DataRoot: "/var/lib/docker", Runtimes: map[string]dockerRuntime{"i": {Path: "/i"}, "j": {Path: "/j"}}},
		},
	} {
		args := strings.Fields(c.args)
		d := dockerDefaults().withArgs(args)
		if c.file != "" {
			var err error
			if d, err = d.withFile([]byte(c.file)); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			d = d.withArgs(args)
		}
		if !reflect.DeepEqual(d, c.want) {
			t.Errorf("%s: got  %+v\nwant %+v", c.name, d, c.want)
		}
	}
	if _, err := dockerDefaults().withFile([]byte(`{"runtimes": []}`)); err == nil {
		t.Error("a wrong file was taken")
	}
}

func TestJudgeDocker(t *testing.T) {
	t.Parallel()
	systemd := config.Default()
	systemd.Runtime.SystemdCgroup = true
	runtimes := func(r dockerRuntime) docker {
		d := dockerDefaults()
		d.Runtimes = map[string]dockerRuntime{"mine": r, "runsc": {Path: "/runsc"}, "kata": {Type: "io.containerd.kata.v2"}}
		return d
	}
	const who, entry = "Docker, process 7", "Docker runtime mine, process 7"
	good := Line{who, OK, "version 26.1.5, with containerd in process 8: docker run --runtime " + runtimeName, ""}
	for _, c := range []struct {
		name   string
		docker docker
		edit   func(*dockerHost)
		want   []Line // Reason and Fix are contained
	}{
		{"no configuration", dockerDefaults(), nil, []Line{good}},
		{"by type", runtimes(dockerRuntime{Type: runtimeName}), nil, []Line{{who, OK, runtimeName + ", or mine", ""}}},
		{"by path of the type", runtimes(dockerRuntime{Type: "/bin/" + shimName}), nil, []Line{{who, OK, ", or mine", ""}}},
		{"by a path that is not there", runtimes(dockerRuntime{Type: "/no/" + shimName}), nil, []Line{{entry, Failed, "no such", `"runtimeType": "io.containerd.isolate.v1"`}, good}},
		{"as OCI runtime", runtimes(dockerRuntime{Path: "/bin/" + shimName}), nil, []Line{{entry, Failed, "path is for OCI runtimes", `put "mine": {"runtimeType": "io.containerd.isolate.v1"} into runtimes of /etc/docker/daemon.json`}, good}},
		{"misspelt", runtimes(dockerRuntime{Type: "io.containerd.isolate.v2"}), nil, []Line{{entry, Failed, "containerd-shim-isolate-v2", runtimeName}, good}},
		{"options lost", runtimes(dockerRuntime{Type: runtimeName, Options: map[string]any{"BinaryName": "crun", "ConfigPath": "/c"}}), nil, []Line{{entry, Degraded, "does not pass on the options BinaryName", "ConfigPath"}, {who, OK, ", or mine", ""}}},
		{"default", docker{Default: runtimeName}, nil, []Line{{who, OK, "which is the default", ""}}},
		{"too old", dockerDefaults(), func(h *dockerHost) { h.Version = "Docker version 20.10.24+dfsg1, build 297e128" }, []Line{{who, Failed, "20.10.24+dfsg1 starts no shims", "Docker 23"}}},
		{"odd version", dockerDefaults(), func(h *dockerHost) { h.Version = "Docker version dev, build x" }, []Line{{who, Degraded, "not understood", "Docker 23"}}},
		{"no shim", dockerDefaults(), func(h *dockerHost) { h.ShimErr = errors.New("not in /bin") }, []Line{{who, Failed, "with containerd in process 8, which does not find the shim: not in /bin", "PATH"}}},
		{"systemd", docker{Driver: "systemd"}, nil, []Line{good}},
		{"systemd by itself", docker{}, func(h *dockerHost) { h.Systemd, h.Unified = true, true }, []Line{good}},
		{"systemd on version 1", docker{}, func(h *dockerHost) { h.Systemd = true }, []Line{good}},
		{"systemd agreed on", docker{Driver: "systemd"}, func(h *dockerHost) { h.Config = systemd }, []Line{good}},
		{"cgroupfs", docker{Driver: "cgroupfs", Config: "/d.json"}, func(h *dockerHost) { h.Config = systemd }, []Line{{who, Failed, "cgroup driver is cgroupfs", "exec-opts of /d.json"}, good}},
		{"mapped by Docker", docker{Remap: "default"}, nil, []Line{{who, Degraded, "userns-remap = default", "remove userns-remap"}, good}},
		{"FUSE layers", docker{Storage: "fuse-overlayfs"}, nil, []Line{{who, Failed, "storage driver fuse-overlayfs serves files by FUSE", "overlay2"}, good}},
		{"not running", runtimes(dockerRuntime{Path: "/bin/" + shimName}), func(h *dockerHost) { h.Version = "" }, []Line{{entry, Failed, "path is for OCI runtimes", ""}}},
		{"not running and well", runtimes(dockerRuntime{Type: runtimeName}), func(h *dockerHost) { h.Version = "" }, nil},
	} {
		h := dockerHost{
			Who: "process 7", Version: "Docker version 26.1.5, build x", Containerd: "containerd in process 8", Config: config.Default(),
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
	f.Add([]byte(`{"runtimes": {"i": {"runtimeType": "io.containerd.isolate.v1", "options": {"a": 1}}}}`), "dockerd\x00--add-runtime\x00i=/i\x00--exec-opt\x00=")
	f.Add([]byte(`{"exec-opts": ["native.cgroupdriver"]}`), "dockerd\x00-s")
	f.Fuzz(func(_ *testing.T, file []byte, args string) {
		d := dockerDefaults().withArgs(strings.Split(args, "\x00"))
		if both, err := d.withFile(file); err == nil {
			d = both.withArgs(strings.Split(args, "\x00"))
		}
		d.judge(dockerHost{Version: "Docker version 26.1.5, build x", Executable: func(string) error { return nil }})
	})
}
