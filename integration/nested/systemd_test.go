// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
)

// TestSystemd boots systemd inside a container, with sshd, Docker and containerd
// as units: the container as a virtual machine.
func TestSystemd(t *testing.T) {
	for _, test := range []struct {
		name    image.Name
		runtime peer.Name
	}{
		{image.Systemd252, peer.Runc15},
		{image.Systemd257, peer.Runc15},
		{image.Systemd252, peer.Crun121},
		{image.Systemd257, peer.Crun121},
	} {
		t.Run(string(test.name)+"/"+string(test.runtime), func(t *testing.T) {
			n := on(t, test.runtime)
			// As in a virtual machine, setuid programs work.
			flags := slices.Concat(inner(t), []string{"--memory-limit", memoryLimit, "--allow-new-privs", "--hostname", "machine"})
			c := start(t, n, test.name, flags)
			running(t, c)
			ask := systemdPrograms
			if test.runtime != peer.Runc15 {
				ask = programsAlone // what they see inside is no matter of the runtime
			}
			for _, part := range []struct {
				name string
				test func(*testing.T, *container)
			}{
				{"system", systemdSystem},
				{"ssh", systemdSSH},
				{"docker", systemdDocker},
				{"containerd", systemdContainerd},
				{"programs", ask},
			} {
				if part.name == "programs" && test.name != image.Systemd257 {
					continue // they are in one image
				}
				t.Run(part.name, func(t *testing.T) { part.test(t, c) })
			}
			// On cgroup v1 nobody tells a systemd in a container that a group has
			// become empty; systemd 252 then waits for user managers until it is
			// out of time.
			c.sh(t, "mkdir /run/systemd/system/user@.service.d && printf '[Service]\\nTimeoutStopSec=2s\\n' >/run/systemd/system/user@.service.d/t.conf && systemctl daemon-reload")
			c.sh(t, "systemctl poweroff")
			c.awaitEnd(t)
		})
	}
}

// TestSystemdEntries boots systemd by what images name as their command, and
// stops it by the signal that clients send.
func TestSystemdEntries(t *testing.T) {
	each(t, both, func(t *testing.T, n *node) {
		for _, argv := range [][]string{
			{"/sbin/init"},
			{"/lib/systemd/systemd", "--log-level=info"},
			{"/usr/local/bin/entrypoint", "/sbin/init"},
			{"sh", "-c", "mkdir -p /run/mine; exec /sbin/init"},
		} {
			t.Run(strings.ReplaceAll(argv[0][1:], "/", "_"), func(t *testing.T) {
				c := start(t, n, image.Systemd252, nil, argv...)
				running(t, c)
				n.Ctr(t.Context(), "tasks", "kill", c.id).Must(t)
				c.awaitEnd(t)
			})
		}
	})
}

// TestKillAllOfSystemd removes a container whose first process has moved to a
// cgroup below the container's, where crun does not look for processes to kill.
func TestKillAllOfSystemd(t *testing.T) {
	each(t, both, func(t *testing.T, n *node) {
		c := start(t, n, image.Systemd252, nil, "/sbin/init")
		running(t, c)
		n.Ctr(t.Context(), "tasks", "rm", "--force", c.id).Must(t)
	})
}

// running waits until systemd has started all units, and fails if it could not.
func running(t *testing.T, c *container) {
	t.Helper()
	c.await(t, "systemctl is-system-running --wait | grep -qE '^(running|degraded)$'")
	if failed := c.sh(t, "systemctl list-units --failed --no-legend --plain"); failed != "" {
		unit := strings.Fields(failed)[0]
		t.Errorf("failed units:\n%s\n%s", failed, c.try(t, "systemctl status --no-pager -l "+unit+"; journalctl --no-pager -n 20 -u "+unit).Stdout)
	}
	c.expect(t, "running", "systemctl is-system-running")
}

func systemdSystem(t *testing.T, c *container) {
	c.expect(t, "systemd", "cat /proc/1/comm")
	c.expect(t, "machine", "hostname")
	c.expect(t, "found", "logger -t mark found; journalctl --sync; journalctl -t mark -o cat")
	c.expect(t, "active active active active", "echo $(systemctl is-active ssh docker containerd dbus)")
	// A service with mount, user and cgroup settings of its own.
	c.expect(t, "65534", "systemd-run -q --wait --pipe -p DynamicUser=no -p User=nobody -p PrivateTmp=yes -p ProtectSystem=strict -p PrivateDevices=no -p MemoryMax=64M id -u")
	c.expect(t, "1048576 kB", "systemd-run -q --wait --pipe -p PrivateTmp=yes "+total)
	c.expect(t, "dead", "systemd-run -q --unit limited -p MemoryMax=32M -p MemorySwapMax=0 sh -c 'exec busybox dd if=/dev/zero of=/dev/null bs=200M count=1'; for i in $(seq 600); do systemctl is-active -q limited || break; sleep 0.1; done; systemctl is-failed limited >/dev/null && systemctl reset-failed limited && echo dead")
	c.expect(t, "1000", "systemd-run -q --wait --pipe --uid 1000 id -u")
	c.sh(t, "systemctl daemon-reexec && systemctl restart systemd-journald && systemctl restart ssh")
	c.expect(t, "", "systemctl list-units --failed --no-legend --plain")
}

// systemdSSH logs in from another container.
func systemdSSH(t *testing.T, c *container) {
	client := start(t, c.node, image.Docker26, nil, "sleep", "infinity")
	key := client.sh(t, "ssh-keygen -q -t ed25519 -N '' -f /key && cat /key.pub")
	for _, user := range []string{"root", "user"} {
		c.sh(t, "h=$(getent passwd "+user+" | cut -d: -f6) && install -d -m 700 -o "+user+" -g "+user+" $h/.ssh && echo '"+key+"' >$h/.ssh/authorized_keys && chown "+user+" $h/.ssh/authorized_keys")
		client.expect(t, user+" machine", "ssh -i /key -o StrictHostKeyChecking=no -o BatchMode=yes "+user+"@"+c.address+" 'echo $(id -un) $(hostname)'")
	}
	client.expect(t, "active", "ssh -i /key -o StrictHostKeyChecking=no root@"+c.address+" systemctl --user is-active default.target")
}

func systemdDocker(t *testing.T, c *container) {
	c.sh(t, "docker load -i /inner.tar && docker tag "+innerReference+" i")
	c.expect(t, "overlay2", "docker info -f '{{.Driver}}'")
	c.expect(t, "second", "docker run --rm i cat /layer")
	c.expect(t, "1048576 kB", "docker run --rm i "+total)
	c.expect(t, c.address, "docker run --rm i wget -qO- "+peers(t))
	c.sh(t, "docker run -d --init --restart always --name web -p 8082:80 i httpd -f -h /www")
	if got, want := get(t, "http://"+c.address+":8082/"), "served by the inner image"; got != want {
		t.Errorf("published port shows %q, want %q", got, want)
	}
	c.sh(t, "systemctl restart docker")
	c.await(t, "test $(docker inspect -f '{{.State.Running}}' web) = true")
	c.expect(t, "0", "docker run --rm --privileged i id -u")
}

func systemdContainerd(t *testing.T, c *container) {
	c.sh(t, "ctr images import /inner.tar")
	c.expect(t, "second", "ctr run --rm "+innerReference+" x cat /layer")
}
