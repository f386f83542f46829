// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/cmd/isolatectl/check"
	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// dockerd is a running one.
type dockerd struct {
	pid  int
	dir  string
	host string // of the client
}

// startDockerd starts a dockerd without a network. Its PATH begins with bin.
func startDockerd(t *testing.T, name peer.Name, bin string, settings map[string]any, args ...string) dockerd {
	t.Helper()
	p, err := peer.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(rig.Dir(), "d")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { // dockerd that maps ids insists
		t.Fatal(err)
	}
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	d := dockerd{dir: dir, host: "unix://" + filepath.Join(dir, "s")}
	file := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(p.Program("dockerd"), append([]string{
		"--data-root", filepath.Join(dir, "root"), "--exec-root", filepath.Join(dir, "x"), "--pidfile", filepath.Join(dir, "pid"),
		"--host", d.host, "--config-file", file, "--bridge", "none", "--iptables=false", "--ip6tables=false", "--userland-proxy=false",
	}, args...)...)
	cmd.Env = []string{"PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=" + t.TempDir()}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.pid = cmd.Process.Pid
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Error("dockerd does not end")
			_ = cmd.Process.Kill()
		}
		if t.Failed() {
			text, err := os.ReadFile(log.Name())
			t.Logf("log of dockerd: %s %v", text[max(0, len(text)-4000):], err)
		}
	})
	rig.Eventually(t, "answer of dockerd", func() bool {
		select {
		case <-ended:
			t.Fatal("dockerd has ended")
		default:
		}
		return d.docker(t, "version").Err() == nil
	})
	return d
}

func (d dockerd) docker(t *testing.T, args ...string) rig.Result {
	t.Helper()
	p, err := peer.Get(t.Context(), peer.Docker26)
	if err != nil {
		t.Fatal(err)
	}
	return rig.Exec(t.Context(), append([]string{p.Program("docker"), "--config", filepath.Join(d.dir, "client"), "--host", d.host}, args...)...)
}

// programs is a directory with the shims, a runtime and a containerd.
func programs(t *testing.T, containerd peer.Name, isolate bool) string {
	t.Helper()
	bin := t.TempDir()
	for name, programs := range map[peer.Name][]string{containerd: {"containerd", "containerd-shim-runc-v2"}, peer.Runc15: {"runc"}} {
		p, err := peer.Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, program := range programs {
			link(t, p.Program(program), filepath.Join(bin, program))
		}
	}
	if isolate {
		built, err := rig.Built(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for program, path := range built {
			link(t, path, filepath.Join(bin, program))
		}
	}
	return bin
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

// pidOf is the process whose command line has all of parts.
func pidOf(t *testing.T, parts ...string) int {
	t.Helper()
	lines, err := filepath.Glob("/proc/*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
next:
	for _, file := range lines {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, part := range parts {
			if !strings.Contains(string(text), part) {
				continue next
			}
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil {
			return pid
		}
	}
	t.Fatalf("no process with %q", parts)
	return 0
}

// TestDocker reads what check says of dockerds that are configured well and
// wrongly, with a containerd of their own, beside them, and within.
func TestDocker(t *testing.T) {
	for _, name := range []peer.Name{peer.Docker26, peer.Docker29} {
		t.Run(string(name), func(t *testing.T) {
			rig.Require(t, rig.Root)
			shim := "containerd-shim-isolate-v1"
			t.Run("managed", func(t *testing.T) {
				bin := programs(t, peer.Containerd24, true)
				d := startDockerd(t, name, bin, map[string]any{
					"default-runtime": "good",
					"runtimes": map[string]any{
						"good":   map[string]any{"runtimeType": "io.containerd.isolate.v1"},
						"bypath": map[string]any{"runtimeType": filepath.Join(bin, shim)},
						"gone":   map[string]any{"runtimeType": "/nowhere/" + shim},
						"wrong":  map[string]any{"path": filepath.Join(bin, shim)},
						"typo":   map[string]any{"runtimeType": "io.containerd.isolate.v2"},
						"opts":   map[string]any{"runtimeType": "io.containerd.isolate.v1", "options": map[string]any{"BinaryName": "crun"}},
						"runsc":  map[string]any{"path": "/bin/true"},
					},
				}, "--add-runtime", "flag="+filepath.Join(bin, shim))
				r := check.Run(t.Context(), config(t, ""))
				containerd := pidOf(t, filepath.Join(d.dir, "x/containerd/containerd.toml"))
				who := fmt.Sprintf("process %d", d.pid)
				for what, want := range map[string]check.Line{
					"Docker, " + who:               {Result: check.OK, Reason: fmt.Sprintf("with containerd in process %d: docker run --runtime io.containerd.isolate.v1, or bypath, or good, or opts, which is the default", containerd)},
					"Docker runtime gone, " + who:  {Result: check.Failed, Reason: "cannot start the shim: stat /nowhere/" + shim},
					"Docker runtime wrong, " + who: {Result: check.Failed, Reason: "path is for OCI runtimes", Fix: `"wrong": {"runtimeType": "io.containerd.isolate.v1"} into runtimes of ` + filepath.Join(d.dir, "daemon.json")},
					"Docker runtime flag, " + who:  {Result: check.Failed, Reason: "path is for OCI runtimes"},
					"Docker runtime typo, " + who:  {Result: check.Failed, Reason: "containerd-shim-isolate-v2"},
					"Docker runtime opts, " + who:  {Result: check.Degraded, Reason: "the options BinaryName"},
				} {
					expect(t, r, what, want)
				}
				find(t, r, "images in "+filepath.Join(d.dir, "root/containerd/daemon"))
				for _, l := range r.Lines {
					if strings.Contains(l.What, "runsc") || strings.Contains(l.What, "CRI") && l.Result != check.Note {
						t.Errorf("%+v", l)
					}
				}
			})
			t.Run("without the shim", func(t *testing.T) {
				d := startDockerd(t, name, programs(t, peer.Containerd24, false), nil)
				r := check.Run(t.Context(), config(t, ""))
				expect(t, r, fmt.Sprintf("Docker, process %d", d.pid), check.Line{Result: check.Failed, Reason: "does not find the shim: " + shim + " is not in ", Fix: "install " + shim})
				expect(t, r, "shim", check.Line{Result: check.Failed})
			})
			t.Run("beside containerd", func(t *testing.T) {
				node := rig.Containerd(t, rig.Config{Isolate: true})
				// The shim is not where dockerd could see it, and need not be.
				d := startDockerd(t, name, programs(t, peer.Containerd24, false), nil, "--containerd", node.Address, "--storage-driver=vfs")
				r := check.Run(t.Context(), config(t, "[runtime]\nsystemd_cgroup = true\n"))
				what := fmt.Sprintf("Docker, process %d", d.pid)
				var lines []check.Line
				for _, l := range r.Lines {
					if l.What == what {
						lines = append(lines, l)
					}
				}
				if len(lines) != 2 || lines[0].Result != check.Failed || !strings.Contains(lines[0].Reason, "isolate's is systemd") ||
					lines[1].Result != check.OK || !strings.Contains(lines[1].Reason, fmt.Sprintf("with containerd in process %d", node.Pid())) {
					t.Errorf("%+v", lines)
				}
				find(t, r, "images in "+filepath.Join(d.dir, "root"))
			})
		})
	}
}

// TestDockerRemap runs containers under a dockerd that maps ids itself: they have
// the ids that check says they have. An option that check says is passed on is.
func TestDockerRemap(t *testing.T) {
	rig.Require(t, rig.Root)
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		before, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("daemon:300000:65536\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.WriteFile(file, before, 0o644); err != nil {
				t.Error(err)
			}
		})
	}
	settings := filepath.Join(t.TempDir(), "settings.toml")
	if err := os.WriteFile(settings, []byte("nonsense = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDockerd(t, peer.Docker26, programs(t, peer.Containerd24, true), map[string]any{
		"userns-remap": "daemon",
		"runtimes":     map[string]any{"conf": map[string]any{"runtimeType": "io.containerd.isolate.v1", "options": map[string]any{"ConfigPath": settings}}},
	})
	r := check.Run(t.Context(), config(t, ""))
	what := fmt.Sprintf("Docker, process %d", d.pid)
	var lines []check.Line
	for _, l := range r.Lines {
		if l.What == what {
			lines = append(lines, l)
		}
	}
	if len(lines) != 2 || lines[0].Result != check.Degraded || !strings.Contains(lines[0].Reason, "userns-remap: Docker maps ids itself") || lines[1].Result != check.OK {
		t.Errorf("%+v", lines)
	}
	i, err := image.Get(t.Context(), image.Demo)
	if err != nil {
		t.Fatal(err)
	}
	d.docker(t, "load", "--input", i.Path).Must(t)
	run := func(runtime string) rig.Result {
		return d.docker(t, "run", "--rm", "--network=none", "--runtime", runtime, i.Reference, "sh", "-c", "cat /proc/self/uid_map; touch /x; stat -c %u /x /bin/sh")
	}
	for range 2 { // both have the same
		if got := strings.Fields(run("io.containerd.isolate.v1").Must(t)); !slices.Equal(got, []string{"0", "300000", "65536", "0", "0"}) {
			t.Errorf("ids and owners are %q", got)
		}
	}
	if got := run("conf"); got.Code == 0 || !strings.Contains(got.Stderr, "nonsense") || !strings.Contains(got.Stderr, settings) {
		t.Errorf("a file with a mistake: %v", got.Err())
	}
}

// TestDockerWithin is a dockerd that runs a containerd in itself, as it does if it
// has none to start: the shim is then looked for on dockerd's PATH.
func TestDockerWithin(t *testing.T) {
	rig.Require(t, rig.Root)
	bin := programs(t, peer.Containerd24, true)
	if err := os.Remove(filepath.Join(bin, "containerd")); err != nil {
		t.Fatal(err)
	}
	d := startDockerd(t, peer.Docker29, bin, map[string]any{"features": map[string]bool{"embedded-containerd": true}})
	r := check.Run(t.Context(), config(t, ""))
	expect(t, r, fmt.Sprintf("Docker, process %d", d.pid), check.Line{Result: check.OK, Reason: fmt.Sprintf("with containerd in process %d: docker run", d.pid)})
	expect(t, r, "shim", check.Line{Result: find(t, r, "shim").Result, Reason: filepath.Join(bin, "containerd-shim-isolate-v1")})
	for _, l := range r.Lines {
		if l.What == "containerd" {
			t.Errorf("%+v", l)
		}
	}
}

// TestDockerNotRunning reads the file at its usual place.
func TestDockerNotRunning(t *testing.T) {
	rig.Require(t, rig.Root)
	write(t, "/etc/docker/daemon.json", `{"runtimes": {"isolate": {"path": "/usr/local/bin/containerd-shim-isolate-v1"}}}`)
	expect(t, check.Run(t.Context(), config(t, "")), "Docker runtime isolate, /etc/docker/daemon.json", check.Line{Result: check.Failed, Reason: "path is for OCI runtimes", Fix: "of /etc/docker/daemon.json"})
	if err := os.WriteFile("/etc/docker/daemon.json", []byte(`{"runtimes": `), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, check.Run(t.Context(), config(t, "")), "Docker, /etc/docker/daemon.json", check.Line{Result: check.Degraded, Reason: "unexpected end of JSON", Fix: "correct it"})
}
