// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// runtimeName is what the shim is called by those who have configured nothing.
const runtimeName = rig.Shim

// daemon is a dockerd and how its containers come to run with isolate.
type daemon struct {
	*rig.Docker
	flags []string // of docker run and create
	image string
	log   string // that of the shims
	next  int
}

// combination is a way to set Docker up.
type combination struct {
	name   string
	config rig.DockerConfig
	// flags choose the runtime; none if it is the default.
	flags  []string
	driver string // that dockerd is to say it uses
}

func shimPath(t *testing.T) string {
	t.Helper()
	built, err := rig.Built(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return built["containerd-shim-isolate-v1"]
}

// isolated is what dockerd and containerd find on their PATH.
func isolated(containerd, runc peer.Name) rig.Config {
	return rig.Config{Containerd: containerd, Runc: runc, Isolate: true}
}

// alias is daemon.json with a short name for the runtime, by name or path.
func alias(runtimeType string, more map[string]any) map[string]any {
	settings := map[string]any{"runtimes": map[string]any{"isolate": map[string]any{"runtimeType": runtimeType}}}
	for key, value := range more {
		settings[key] = value
	}
	return settings
}

// startDaemon starts dockerd with lxcfs beside it, and the image that its tests use.
func startDaemon(t *testing.T, c combination, img image.Name) *daemon {
	t.Helper()
	rig.Require(t, rig.Root, rig.FUSE)
	rig.LxcfsFor(t, peer.Lxcfs6, "")
	patient(t)
	d := &daemon{Docker: rig.DockerFor(t, c.config), flags: c.flags}
	d.log = d.Log
	if d.Containerd != nil {
		d.log = d.Containerd.Log
	}
	if got := d.docker(t, "info", "--format", "{{.Driver}}"); got != c.driver {
		t.Fatalf("storage driver is %q, want %q", got, c.driver)
	}
	var err error
	if d.image, err = d.Load(context.WithoutCancel(t.Context()), img); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the shims have said:\n%s", d.said("level=warning msg=\"isolate: "))
		}
	})
	return d
}

// rehearse makes what Docker and the shim keep once they have run a container, and
// returns what there is then.
func (d *daemon) rehearse(t *testing.T) rig.Leftovers {
	t.Helper()
	// With the host's network dockerd makes a mount that it keeps.
	for _, network := range []string{"bridge", "host"} {
		d.prints(t, "0", []string{"--net", network}, "id -u")
	}
	return rig.MustSnapshot(t)
}

// docker runs the client, which must succeed, and returns what it prints.
func (d *daemon) docker(t *testing.T, args ...string) string {
	t.Helper()
	return strings.TrimSpace(d.Run(t.Context(), args...).Must(t))
}

// paste runs commands of a page, with some words in place of others, and returns what
// they print, with one space for each run of them.
func (d *daemon) paste(t *testing.T, commands string, replaced ...string) string {
	t.Helper()
	script := "set -e; sudo() { \"$@\"; }; docker() { " + strings.Join(d.Client(), " ") + " \"$@\"; }\n" + strings.NewReplacer(replaced...).Replace(commands)
	return strings.Join(strings.Fields(rig.Exec(t.Context(), "sh", "-c", script).Must(t)), " ")
}

// start runs a container in the background and returns its name. It goes away
// with the test.
func (d *daemon) start(t *testing.T, flags []string, argv ...string) string {
	t.Helper()
	return d.of(t, d.image, flags, argv...)
}

// of is start with another image.
func (d *daemon) of(t *testing.T, img string, flags []string, argv ...string) string {
	t.Helper()
	name := d.name(t)
	if len(argv) == 0 {
		argv = []string{"sleep", "infinity"}
	}
	d.docker(t, d.args(flags, []string{"--detach", "--name", name}, img, argv)...)
	return name
}

// name makes a name for a container that goes away with the test.
func (d *daemon) name(t *testing.T) string {
	t.Helper()
	d.next++
	name := fmt.Sprintf("c%03d", d.next)
	t.Cleanup(func() {
		// The test's context has ended.
		if t.Failed() {
			if lines := strings.Split(d.Run(context.Background(), "logs", name).Stderr, "\n"); len(lines) > 1 {
				t.Logf("%s printed:\n%s", name, strings.Join(lines[max(0, len(lines)-20):], "\n"))
			}
		}
		if r := d.Run(context.Background(), "rm", "--force", "--volumes", name); r.Err() != nil && !strings.Contains(r.Stderr, "No such container") {
			t.Error(r.Err())
		}
	})
	return name
}

func (d *daemon) args(flags, more []string, img string, argv []string) []string {
	args := append([]string{"run", "--pull=never"}, d.flags...)
	args = append(append(args, more...), flags...)
	return append(append(args, img), argv...)
}

// run runs a script in a container to its end.
func (d *daemon) run(t *testing.T, flags []string, script string) rig.Result {
	t.Helper()
	return d.Run(t.Context(), d.args(flags, []string{"--rm"}, d.image, []string{"sh", "-c", script})...)
}

// prints fails the test unless a script in a container of its own prints what is
// wanted.
func (d *daemon) prints(t *testing.T, want string, flags []string, script string) {
	t.Helper()
	r := d.run(t, flags, script)
	if got := strings.TrimSpace(r.Stdout); got != want || r.Err() != nil {
		t.Errorf("docker run %s: %s\nprinted %q, want %q, exited with %d\n%s", strings.Join(flags, " "), script, got, want, r.Code, r.Stderr)
	}
}

// in runs a script in a running container, which must succeed.
func (d *daemon) in(t *testing.T, name, script string) string {
	t.Helper()
	return d.docker(t, "exec", name, "sh", "-c", script)
}

// expect fails the test unless a script in a running container prints what is wanted.
func (d *daemon) expect(t *testing.T, want, name, script string) {
	t.Helper()
	r := d.Run(t.Context(), "exec", name, "sh", "-c", script)
	if got := strings.TrimSpace(r.Stdout); got != want || r.Err() != nil {
		t.Errorf("docker exec: %s\nprinted %q, want %q, exited with %d\n%s", script, got, want, r.Code, r.Stderr)
	}
}

// refused fails the test unless the client fails with all of the words.
func (d *daemon) refused(t *testing.T, r rig.Result, words ...string) {
	t.Helper()
	if r.Code == 0 {
		t.Errorf("docker %s succeeded", strings.Join(r.Argv[len(d.Client()):], " "))
	}
	for _, word := range words {
		if !strings.Contains(r.Stderr, word) {
			t.Errorf("docker %s\nsays %s\nand nothing of %q", strings.Join(r.Argv[len(d.Client()):], " "), r.Stderr, word)
		}
	}
}

// inspect returns a field of a container.
func (d *daemon) inspect(t *testing.T, name, format string) string {
	t.Helper()
	return d.docker(t, "inspect", "--format", format, name)
}

// pid is the first process of a container.
func (d *daemon) pid(t *testing.T, name string) string {
	t.Helper()
	return d.inspect(t, name, "{{.State.Pid}}")
}

// said returns what shims have logged with a phrase.
func (d *daemon) said(phrase string) string {
	text, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, phrase) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-60):], "")
}

// patient makes a slow machine wait for lxcfs, whatever configure does.
func patient(t *testing.T) {
	t.Helper()
	const dir = "/etc/isolate/config.d"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/patience.toml", []byte("lxcfs.timeout_ms = 20000\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
