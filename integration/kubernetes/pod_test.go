// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// owner is UID:GID of a file.
func owner(info os.FileInfo) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "unknown"
	}
	return fmt.Sprintf("%d:%d", stat.Uid, stat.Gid)
}

// pod is a pod that waits to be looked at. The lines go into its spec.
func pod(name string, spec ...string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %[1]s}}
spec:
  runtimeClassName: isolate
  %s
  containers:
    - name: main
      image: local/debian:demo
      command: [sleep, "86400"]
`, name, strings.Join(spec, "\n  "))
}

const (
	uidMap    = "set -- $(cat /proc/self/uid_map); echo $1 $3; test $2 -ge 65536"
	hostUsers = "jsonpath={.spec.hostUsers}"
)

// TestPolicy has Kubernetes map the ids of pods that say nothing about it, and
// leaves those alone that cannot be mapped, or do not run under isolate.
func TestPolicy(t *testing.T) {
	c := on(t)
	leavesNothing(t)
	t.Run("pods", func(t *testing.T) {
		// They ask for the network, whose containers would be apart from it else.
		asking := strings.ReplaceAll(pod("silent")+"---"+pod("network", "hostNetwork: true")+"---"+pod("said", "hostUsers: true"),
			"- name: main", "- name: main\n      securityContext: {capabilities: {add: [NET_ADMIN]}}")
		c.apply(t, asking)
		c.apply(t, strings.Replace(pod("other"), "runtimeClassName: isolate", "", 1))
		c.ready(t, "silent", "network", "other", "said")
		c.expect(t, "false", "get", "pod", "silent", "-o", hostUsers)
		c.expect(t, "", "get", "pod", "network", "-o", hostUsers)
		c.expect(t, "", "get", "pod", "other", "-o", hostUsers)
		c.expect(t, "true", "get", "pod", "said", "-o", hostUsers)
		c.inPod(t, "0 65536", "silent", uidMap)
		// Its network namespace is its own to administer.
		c.inPod(t, "done", "silent", "ip link add d0 type bridge && sysctl -qw net.ipv4.ip_forward=1 && echo done")
		// The others have a range of their own, and no such network.
		for _, name := range []string{"network", "said"} {
			c.inPod(t, "0 65536", name, uidMap)
			c.inPod(t, "refused", name, "ip link add d1 type bridge 2>/dev/null || echo refused")
		}
		c.inPod(t, "0 4294967295", "other", "set -- $(cat /proc/self/uid_map); echo $1 $3")
	})
	t.Run("host's processes", func(t *testing.T) {
		c.apply(t, pod("processes", "hostPID: true"))
		c.event(t, "processes", "shares the host's pid namespace", "drop the host pid setting")
	})
}

// event waits for an event of a pod that has all parts, as kubectl describe shows
// it.
func (c *cluster) event(t *testing.T, pod string, parts ...string) {
	t.Helper()
	text := ""
	waitFor(t, func() bool {
		text = c.must(t, "describe", "pod", pod)
		for _, part := range parts {
			if !strings.Contains(text, part) {
				return false
			}
		}
		return true
	}, func() string { return fmt.Sprintf("%q in\n%s", parts, text) })
}

// TestWithoutPolicy is about a cluster without the policy: the pod gets a range of
// its own by the shim, with one warning, or is refused if the node is set so.
func TestWithoutPolicy(t *testing.T) {
	c := on(t)
	c.must(t, "delete", "mutatingadmissionpolicybinding", "isolate-host-users")
	t.Cleanup(func() {
		if err := c.deploy(context.Background(), "install", "isolate"); err != nil {
			t.Error(err)
		}
	})
	leavesNothing(t)
	t.Run("degrade", func(t *testing.T) {
		c.settled(t)
		warning := []string{"level=warning", "belongs to another user namespace", "set hostUsers: false"}
		warned := c.logged(t, warning...)
		c.apply(t, pod("own"))
		c.ready(t, "own")
		c.expect(t, "", "get", "pod", "own", "-o", hostUsers)
		c.inPod(t, "0 65536", "own", uidMap)
		c.inPod(t, "of the pool", "own", "set -- $(cat /proc/self/uid_map); test $2 -ge 1879048192 && echo of the pool")
		c.inPod(t, "read-only", "own", "touch /sys/x 2>/dev/null || echo read-only")
		// Once for the pod, not for each of its containers.
		if now := c.logged(t, warning...); len(now) != len(warned)+1 {
			t.Errorf("warned %d times: %q", len(now)-len(warned), now)
		}
	})
	t.Run("refuse", func(t *testing.T) {
		rig.Configure(t, "foreign_netns = \"refuse\"\n")
		c.apply(t, pod("refused"))
		c.event(t, "refused", "FailedCreatePodSandBox", `foreign_netns is "refuse"`, "hostUsers: false")
	})
}
