// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// withDocker starts a container with a Docker that has an image, and the limit
// by which its view is known.
func withDocker(t *testing.T, n *node) *container {
	t.Helper()
	c := start(t, n, image.Docker26, slices.Concat(inner(t), []string{"--memory-limit", memoryLimit}), "dockerd")
	c.await(t, "docker version")
	c.sh(t, "docker load -i /inner.tar && docker tag "+innerReference+" i")
	return c
}

// TestViewsInTrouble starts inner containers while what shows them their limits
// hangs, is dead, and is there again. They start each time.
//
// When it begins to hang, so does whatever reads the outer container's own files of it,
// until they are taken away. That is every program of several threads with Debian's libc,
// which looks at /sys/devices/system/cpu/online, and so Docker; but not crun and bubblewrap.
func TestViewsInTrouble(t *testing.T) {
	// Longer than any start, and shorter than a hang.
	const within = "timeout -s KILL 60 "
	const docker, crun, bwrap = within + "docker run --rm i ", within + "crun run x", within + "bwrap --dev-bind / / --proc /proc echo started"
	each(t, both, func(t *testing.T, n *node) {
		dir := filepath.Join(t.TempDir(), "lxcfs")
		rig.Configure(t, fmt.Sprintf("lxcfs.path = %q\n", dir))
		lxcfs := rig.LxcfsFor(t, peer.Lxcfs5, dir)
		c := withDocker(t, n)
		c.sh(t, `mkdir -p /bundle/rootfs/bin && cd /bundle && cp /bin/busybox rootfs/bin && crun spec &&
			sed -i 's/"terminal": true/"terminal": false/; s|"sh"|"/bin/busybox", "echo", "started"|' config.json`)
		all := func() {
			t.Helper()
			for _, run := range []string{"cd /bundle && " + crun, bwrap} {
				c.expect(t, "started", run)
			}
		}
		all()
		c.expect(t, "1048576 kB", docker+total)

		if err := lxcfs.Stop(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			all()
		}
		c.awaitLong(t, "! grep -q fuse.lxcfs /proc/self/mountinfo", "cat /proc/self/mountinfo")
		c.expect(t, "started", docker+"echo started")
		if err := lxcfs.Cont(); err != nil {
			t.Fatal(err)
		}
		c.awaitView(t)

		// It answers that it is dead; the host's values show.
		if err := lxcfs.Kill(); err != nil {
			t.Fatal(err)
		}
		host, err := os.ReadFile("/proc/meminfo")
		if err != nil {
			t.Fatal(err)
		}
		all()
		c.expect(t, strings.Join(strings.Fields(string(host))[1:3], " "), docker+total)
		if err := lxcfs.Close(); err != nil {
			t.Fatal(err)
		}
		all()
		c.expect(t, "started", docker+"echo started")
		rig.LxcfsFor(t, peer.Lxcfs5, dir)
		c.awaitView(t)
	})
}

// awaitView waits until inner containers see their limits: a server that did not
// answer is not asked again for some seconds.
func (c *container) awaitView(t *testing.T) {
	t.Helper()
	c.awaitLong(t, "test \"$(docker run --rm i "+total+")\" = '1048576 kB'", "docker run --rm i "+total)
}

// TestShimKilled kills the shim of a container with others inside: with it go
// the answers to their pivot_root, so that all of them have to end.
func TestShimKilled(t *testing.T) {
	each(t, both, func(t *testing.T, n *node) {
		c := withDocker(t, n)
		c.sh(t, "docker run -d i sleep 1000")
		status, err := os.ReadFile("/proc/" + c.pid + "/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "PPid:\t")
		line, _, _ := strings.Cut(rest, "\n")
		shim, err := strconv.Atoi(line)
		if err != nil || shim <= 1 {
			t.Fatalf("parent of the first process is %q: %v", line, err)
		}
		if err := unix.Kill(shim, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		// What is left shows when the test ends.
		rig.Eventually(t, "end of the container with its shim", func() bool {
			return !strings.Contains(n.Ctr(t.Context(), "tasks", "ls").Must(t), c.id+" ")
		})
	})
}
