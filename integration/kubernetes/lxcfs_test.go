// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// TestLxcfsThatDied kills lxcfs, whose mount then fails whoever looks at it. The
// kubelet starts it again, which has to get past that mount, and pods see their
// limits.
func TestLxcfsThatDied(t *testing.T) {
	c := on(t)
	const count = "jsonpath={.items[0].status.containerStatuses[0].restartCount} {.items[0].status.containerStatuses[0].ready}"
	status := []string{"-n", "isolate-system", "get", "pods", "-l", "app.kubernetes.io/name=lxcfs", "-o", count}
	before, _, _ := strings.Cut(c.must(t, status...), " ")
	pid := rig.Exec(t.Context(), "pgrep", "-x", "lxcfs").Must(t)
	rig.Exec(t.Context(), "kill", "-KILL", pid).Must(t)
	after := map[string]string{"0": "1", "1": "2"}[before]
	c.await(t, after+" true", status...)
	c.apply(t, strings.Replace(pod("seeing"), `command: [sleep, "86400"]`, `command: [sleep, "86400"]
      resources: {limits: {memory: 128Mi}}`, 1))
	c.ready(t, "seeing")
	c.inPod(t, "128", "seeing", "free -m | awk '/^Mem/{print $2}'")
	if mounts := rig.Exec(t.Context(), "grep", "-c", "fuse.lxcfs", "/proc/self/mountinfo").Must(t); mounts != "1" {
		t.Errorf("%s mounts of lxcfs on the node, want 1", mounts)
	}
}
