// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/rig"
)

// TestPodThatDoesNotEnd removes containers, and stops and removes pods of which a
// container's first process waits for a FUSE server that it is itself, so that SIGKILL
// alone does not end it. Another container of the pod waits as well, and has so many
// mounts that nobody can read them in time; it must neither hold up the first one nor be
// harmed.
func TestPodThatDoesNotEnd(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.FUSE)
			n := podNode(t, rig.Config{Runc: runtime, LogLevel: "info"})
			rig.Configure(t, twoRanges)
			for range 2 { // makes what is made once
				n.pod(t, own())
			}
			n.removeAll(t)
			program := shareProgram(t)
			before := rig.MustSnapshot(t)
			for _, way := range [][]string{{"stopp", "rmp"}, {"rmp --force"}} {
				t.Run(way[0], func(t *testing.T) {
					p := n.pod(t, own())
					start := func(state string) *container {
						c := p.container(t, merge(security(own(), message{}), message{
							"mounts":  []message{mount(own(), filepath.Dir(program), "/attacker")},
							"command": []string{"/attacker/inside", "end", state},
						}))
						rig.Eventually(t, "wait for its own server", func() bool { return strings.Contains(n.try("logs", c.id).Stdout, "ready/"+state) })
						return c
					}
					remove := func(id string, way ...string) {
						started := time.Now()
						for _, command := range way {
							n.try(append(strings.Fields(command), id)...).Must(t)
						}
						took := time.Since(started).Round(time.Millisecond)
						t.Logf("%v: removed after %v", way, took)
						if took > rig.Patiently(20*time.Second) {
							t.Errorf("%v: it has taken %v", way, took)
						}
					}
					neighbour, c := start("deep-mounts"), start("fuse-own")
					remove(c.id, "rm --force")
					if waits := rig.Exec(t.Context(), "sh", "-c", fmt.Sprintf("cat /proc/%d/task/*/wchan", neighbour.info(t).Info.PID)).Must(t); !strings.Contains(waits, "request_wait_answer") {
						t.Errorf("the neighbour does not wait for its server any more: %s", waits)
					}
					remove(p.id, way...)
					p.remove(t)
				})
				rig.MustMatch(t, before)
			}
		})
	}
}
