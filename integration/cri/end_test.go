// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/rig"
)

// TestPodThatDoesNotEnd stops and removes pods of which a container's first process
// waits for a FUSE server that it is itself, so that SIGKILL alone does not end it.
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
					c := p.container(t, merge(security(own(), message{}), message{
						"mounts":  []message{mount(own(), filepath.Dir(program), "/attacker")},
						"command": []string{"/attacker/inside", "end", "fuse-own"},
					}))
					rig.Eventually(t, "wait for its own server", func() bool { return strings.Contains(n.try("logs", c.id).Stdout, "ready/fuse-own") })
					started := time.Now()
					for _, command := range way {
						n.try(append(strings.Fields(command), p.id)...).Must(t)
					}
					took := time.Since(started).Round(time.Millisecond)
					t.Logf("removed after %v", took)
					if took > rig.Patiently(20*time.Second) {
						t.Errorf("it has taken %v", took)
					}
					p.remove(t)
				})
				rig.MustMatch(t, before)
			}
		})
	}
}
