// SPDX-License-Identifier: Apache-2.0

package cgroup2

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestGroupsAreBounded makes as many groups in a container as the kernel lets it, and as
// deep ones. Neither keeps the machine from making groups, nor the container from being
// removed, while its first process is frozen.
func TestGroupsAreBounded(t *testing.T) {
	for _, runtime := range []peer.Name{peer.Runc15, peer.Crun121} {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.CgroupV2, rig.Root, rig.FUSE)
			rig.LxcfsFor(t, peer.Lxcfs6, "")
			n := startNode(t, runtime)
			// Views of inner containers are not what this is about, and cost time here.
			rig.Configure(t, read(t, "/etc/isolate", "config.toml")+"\nnested = false\n")
			c := n.start(t, "c", nil, "sh", "-c", `cd /sys/fs/cgroup; mkdir jail; echo 1 > jail/cgroup.procs; trap "echo 1 > jail/cgroup.freeze" USR1; while :; do sleep 0.1; done`)
			// Where init is, in jail or not yet.
			c.dir = strings.TrimSuffix(strings.TrimSuffix(c.dir, "/jail"), "/"+leaf)
			equal(t, "cgroup.max.descendants", read(t, c.dir, "cgroup.max.descendants"), 2000)
			equal(t, "cgroup.max.depth", read(t, c.dir, "cgroup.max.depth"), 50)
			got := c.exec(t, `
cd /sys/fs/cgroup
for file in cgroup.max.descendants cgroup.max.depth; do (echo max > $file) 2>/dev/null && echo $file raised; done
mkdir -p kubepods/burstable
seq 110 | sed 's|.*|kubepods/burstable/pod& kubepods/burstable/pod&/pause kubepods/burstable/pod&/a kubepods/burstable/pod&/b|' | xargs mkdir && echo cluster fits
d=0; while mkdir d 2>/tmp/deep && cd d; do d=$((d+1)); done
echo depth $d
echo deep $(cat /tmp/deep)
cd /sys/fs/cgroup
seq 2100 | xargs mkdir 2>/tmp/many
echo many $(tail -n 1 /tmp/many)
echo end reached`)
			equal(t, "a cluster of 110 pods", got["cluster"], "fits")
			equal(t, "depth", got["depth"], "50")
			for _, refusal := range []string{"deep", "many"} {
				if !strings.HasSuffix(got[refusal], "Resource temporarily unavailable") {
					t.Errorf("%s: %q", refusal, got[refusal])
				}
			}
			for _, file := range []string{"cgroup.max.descendants", "cgroup.max.depth"} {
				if got[file] != "" {
					t.Errorf("the container has raised %s", file)
				}
			}
			if !strings.Contains(read(t, c.dir, "cgroup.stat"), "nr_descendants 2000\n") {
				t.Errorf("groups below the container's: %s", read(t, c.dir, "cgroup.stat"))
			}
			// The machine's ids of memory groups are left to others.
			mine := filepath.Join(root, fmt.Sprintf("host-%d", os.Getpid()))
			if err := errors.Join(os.Mkdir(mine, 0o755), os.Remove(mine)); err != nil {
				t.Error(err)
			}
			// From outside, and when nothing else is in the group: what is would never end.
			n.Ctr(t.Context(), "tasks", "kill", "--signal", "SIGUSR1", "c").Must(t)
			rig.Eventually(t, "the container freezes itself", func() bool {
				return strings.Contains(read(t, filepath.Join(c.dir, "jail"), "cgroup.events"), "frozen 1")
			})
			start := time.Now()
			c.remove(t)
			t.Logf("removed with 2000 groups in %v", time.Since(start))
			if _, err := os.Stat(c.dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is still there: %v", c.dir, err)
			}
			n.Ctr(t.Context(), n.run("c", []string{"--rm"}, "true")...).Must(t) // with the only range
		})
	}
}
