// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"os"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// mistakes are what people get wrong: what Docker shows them has to name the
// object, the cause and what to do.
func mistakes(t *testing.T, d *daemon) {
	t.Run("runtime name", func(t *testing.T) {
		r := d.Run(t.Context(), "run", "--rm", "--pull=never", "--runtime", "io.containerd.isolat.v1", d.image, "true")
		d.refused(t, r, "io.containerd.isolat.v1")
	})
	t.Run("no such OCI runtime", func(t *testing.T) {
		rig.Configure(t, "runtime.binary = \"/nowhere/runc\"\n")
		d.refused(t, d.run(t, nil, "true"), "/nowhere/runc", "runtime.binary")
	})
	t.Run("unknown key", func(t *testing.T) {
		rig.Configure(t, "nestings = \"off\"\n")
		d.refused(t, d.run(t, nil, "true"), "/etc/isolate/config.toml", "nestings", "nesting")
	})
	t.Run("out of ids", func(t *testing.T) {
		rig.Configure(t, "ids.pool = [\"1900019712-1900085247\"]\n")
		c := d.start(t, nil)
		d.refused(t, d.run(t, nil, "true"), "1900019712-1900085247", "ids.pool")
		d.expect(t, "1900019712", c, "awk '{ print $2 }' /proc/self/uid_map")
		d.docker(t, "rm", "--force", c)
		d.prints(t, "1900019712", nil, "awk '{ print $2 }' /proc/self/uid_map")
	})
	const annotation = "io.containerd.isolate.nesting=off"
	t.Run("annotation", func(t *testing.T) {
		d.refused(t, d.run(t, []string{"--annotation", annotation}, "true"), "io.containerd.isolate.nesting", "annotations.allow")
		d.refused(t, d.run(t, []string{"--annotation", "io.containerd.isolate.nonsense=1"}, "true"), "io.containerd.isolate.nonsense")
		rig.Configure(t, "annotations.allow = [\"nesting\"]\n")
		d.prints(t, "no", []string{"--annotation", annotation}, "test -e /dev/fuse || echo no")
	})
	t.Run("user", func(t *testing.T) {
		d.refused(t, d.run(t, []string{"--user", "70000"}, "true"), "user 70000 is outside the container's id range", "ids.size")
	})
	t.Run("volume is gone", func(t *testing.T) {
		volume := d.docker(t, "volume", "create")
		defer func() { d.Run(context.Background(), "volume", "rm", "--force", volume).Must(t) }()
		c := d.name(t)
		d.docker(t, append(append([]string{"create", "--pull=never"}, d.flags...), "--name", c, "-v", volume+":/v", d.image, "true")...)
		if err := os.RemoveAll(d.docker(t, "volume", "inspect", "--format", "{{.Mountpoint}}", volume)); err != nil {
			t.Fatal(err)
		}
		d.refused(t, d.Run(t.Context(), "start", c), volume, "no such file or directory")
		d.docker(t, "rm", c)
	})
}
