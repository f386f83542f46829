// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/manual"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestInside runs Docker and systemd in containers of Docker, with their ordinary
// command lines and with those that people are used to.
func TestInside(t *testing.T) {
	d := startDaemon(t, combination{
		config: rig.DockerConfig{
			Dockerd: peer.Docker26, Config: isolated(peer.Containerd24, peer.Runc15), Apart: true,
			Settings: alias(runtimeName, map[string]any{"storage-driver": "overlay2"}),
		},
		flags: []string{"--runtime", runtimeName}, driver: "overlay2",
	}, image.Inner)
	load := func(name image.Name) string {
		t.Helper()
		reference, err := d.Load(context.WithoutCancel(t.Context()), name)
		if err != nil {
			t.Fatal(err)
		}
		return reference
	}
	archive, err := image.Get(t.Context(), image.Inner)
	if err != nil {
		t.Fatal(err)
	}
	inner := []string{"-v", archive.Path + ":/inner.tar:ro", "--memory", "1g"}
	const run = "docker run --rm docker.io/local/inner:1 "
	before := d.rehearse(t)
	img := load(image.Systemd257) // has Docker 26 as well
	for name, flags := range map[string][]string{
		"plain": nil, "privileged": {"--privileged"}, "volume": {"-v", "/var/lib/docker", "--tmpfs", "/run"},
	} {
		t.Run("docker/"+name, func(t *testing.T) {
			c := d.of(t, img, append(inner, flags...), "dockerd")
			d.hostID(t, c)
			await := func() {
				rig.Eventually(t, "inner dockerd", func() bool { return d.Run(t.Context(), "exec", c, "docker", "version").Code == 0 })
			}
			await()
			d.expect(t, "overlay2", c, "docker info --format '{{.Driver}}'")
			d.in(t, c, "docker load --input /inner.tar")
			d.expect(t, "second", c, run+"cat /layer")
			d.expect(t, "262144 kB", c, "docker run --rm -m 256m docker.io/local/inner:1 sed -n 's/MemTotal: *//p' /proc/meminfo")
			d.expect(t, "served by the inner image", c, "docker run -d --name web -p 8080:80 docker.io/local/inner:1 httpd -f -h /www >/dev/null && until busybox wget -qO- http://127.0.0.1:8080/; do sleep 0.1; done")
			d.expect(t, "denied", c, "docker run --rm --privileged docker.io/local/inner:1 sh -c 'mknod /b b 8 0 2>/dev/null || echo denied'")
			// Images and containers survive, with other host ids.
			id := d.hostID(t, c)
			if name == "volume" {
				d.docker(t, "restart", "-t", "0", c)
			} else {
				// In good order: a dockerd that is killed, because its containers take too
				// long to stop, leaves a file in /run that keeps the next from starting.
				d.in(t, c, "docker rm -f web")
				d.docker(t, "restart", c)
			}
			await()
			if d.hostID(t, c) == id {
				t.Error("same host ids as before")
			}
			d.expect(t, "second", c, run+"cat /layer")
			d.docker(t, "rm", "--force", "--volumes", c)
		})
	}
	t.Run("systemd", func(t *testing.T) {
		// The image's command is /sbin/init; dockerd asks it to stop as others do.
		c := d.name(t)
		d.docker(t, d.args(append(inner, "--stop-timeout", "60"), []string{"--detach", "--name", c}, img, nil)...)
		rig.Eventually(t, "systemd is up", func() bool {
			return d.Run(t.Context(), "exec", c, "systemctl", "is-system-running", "--wait").Stdout == "running\n"
		})
		d.in(t, c, "until docker version >/dev/null 2>&1; do sleep 0.1; done; docker load --input /inner.tar")
		d.expect(t, "second", c, run+"cat /layer")
		d.docker(t, "stop", c)
		if got := d.inspect(t, c, "{{.State.ExitCode}}"); got == "137" {
			t.Error("systemd had to be killed")
		}
		d.docker(t, "rm", c)
	})
	// As people paste them.
	for _, commands := range []struct{ path, part, print string }{
		{"README.md", "--name outer", ` overlay2 MemTotal: 131072 kB$`},
		{"README.md", "--name machine", ` running$`},
		{"docs/docker.md", "--name outer", ` overlay2 [0-9a-f]{12}$`},
		{"docs/docker.md", "--name machine", ` running machine$`},
		{"docs/docker.md", "--annotation", `^annotations.allow = \["nesting"\]$`},
	} {
		t.Run(commands.path+commands.part, func(t *testing.T) {
			rig.Configure(t, "") // which the last of them changes
			if _, name, ok := strings.Cut(commands.part, "--name "); ok {
				t.Cleanup(func() { d.Run(context.Background(), "rm", "--force", "--volumes", name).Must(t) })
			}
			const innerRun = "docker exec outer docker run "
			got := d.paste(t, manual.Commands(t, commands.path, commands.part), " IMAGE ", " -v "+archive.Path+":/inner.tar:ro "+img+" ",
				innerRun, "docker exec outer docker load -q -i /inner.tar >/dev/null; "+innerRun, " debian ", " "+d.image+" ")
			if !regexp.MustCompile(commands.print).MatchString(got) {
				t.Errorf("printed %q, want %s", got, commands.print)
			}
		})
	}
	rig.MustMatch(t, before)
}
