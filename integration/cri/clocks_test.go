// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"fmt"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
)

// TestClocksOfPods: uptime and start times count from the same moment in each
// container of a pod, in the one that shares the pod's user namespace as well.
func TestClocksOfPods(t *testing.T) {
	eachPod(t, []peer.Name{peer.Runc15, peer.Crun121, peer.Crun18}, func(t *testing.T, p *pod, config message) {
		for name, context := range map[string]message{
			"apart":                  {},
			"in the pod's namespace": {"capabilities": message{"add_capabilities": []string{"SYS_ADMIN", "NET_ADMIN"}}},
		} {
			c := p.container(t, security(config, context))
			out := c.sh(t, "cut -d. -f1 /proc/uptime; awk '{print int($22 / 100)}' /proc/1/stat; readlink /proc/self/ns/time; readlink /proc/1/ns/time")
			var up, began int
			var here, there string
			if _, err := fmt.Sscan(out, &up, &began, &here, &there); err != nil || up > 300 || began > up || here != there {
				t.Errorf("%s: up %d s, the first process began at %d s, clocks %s and %s, %v: %q", name, up, began, here, there, err, out)
			}
		}
	})
}
