// SPDX-License-Identifier: Apache-2.0

package heal

import (
	"maps"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestHealSystemd has services with mounts of their own, which get what changes
// in the container's.
func TestHealSystemd(t *testing.T) {
	for _, runtime := range []peer.Name{peer.Runc15, peer.Crun121} {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE)
			h := on(t, runtime, 1)
			server := rig.LxcfsFor(t, peer.Lxcfs6, dir)
			h.Ctr(t.Context(), "run", "-d", "--null-io", "--runtime", shimName, "--memory-limit", limit, h.Image(t, image.Systemd252), "m", "/sbin/init").Must(t)
			m := h.container(t, "m")
			all := files(t, m.pid)
			count := len(all)
			await := func(script string) {
				t.Helper()
				m.exec(t, "for i in $(seq 600); do "+script+" && exit 0; sleep 0.1; done; exit 1").Must(t)
			}
			await("systemctl is-system-running | grep -qE '^(running|degraded)$'")
			// It writes what it sees, again and again.
			m.exec(t, "systemd-run -q --unit service -p PrivateTmp=yes sh -c 'while :; do head -n1 /proc/meminfo >/run/seen.new 2>&1; mv /run/seen.new /run/seen; sleep 0.1; done'").Must(t)
			await("grep -q '" + shown + "' /run/seen")
			service := processOf(t, "/usr/bin/sh -c while")
			if service == 0 || len(files(t, service)) != count {
				t.Fatalf("the service is process %d", service)
			}
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
			until(t, m.pid, 0)
			until(t, service, 0)
			await("grep -q '" + hostTotal(t) + "' /run/seen")
			unmount(t)
			rig.LxcfsFor(t, peer.Lxcfs6, dir)
			until(t, m.pid, count)
			until(t, service, count)
			await("grep -q '" + shown + "' /run/seen")
			for _, pid := range []int{m.pid, service} {
				if got := files(t, pid); !maps.Equal(got, all) {
					t.Errorf("process %d has the mounts %v, want %v", pid, got, all)
				}
			}
			m.remove(t)
		})
	}
}
