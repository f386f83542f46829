// SPDX-License-Identifier: Apache-2.0

package cgroup2

import (
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/integration/rig"
)

// sharedQuota: a container inside, whose first process calls pivot_root, has the container's
// CPU quota too, also after an update.
func sharedQuota(t *testing.T, c *container) {
	c.exec(t, `
mkdir -p /m /sys/fs/cgroup/inner
sh -c 'echo $$ >/sys/fs/cgroup/inner/cgroup.procs; exec unshare -fpm sh -c "mount --bind / /m; mount -t proc p /m/proc; cd /m; mkdir -p old; exec pivot_root . old"'
echo end reached`)
	check := func(when, want string) {
		t.Helper()
		rig.Eventually(t, "cpu.max of a container inside "+when, func() bool {
			return read(t, filepath.Join(c.dir, "inner"), "cpu.max") == want
		})
	}
	check("at first", "100000 200000")
	period := uint64(100000)
	for _, now := range []struct {
		quota int64
		want  string
	}{{20000, "40000 200000"}, {50000, "100000 200000"}} {
		c.Container(c.id).Update(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &now.quota, Period: &period}})
		check("after an update", now.want)
	}
	equal(t, "cpu.max of the leaf", read(t, filepath.Join(c.dir, leaf), "cpu.max"), "max 100000")
	c.exec(t, "rmdir /sys/fs/cgroup/inner; echo end reached")
}
