// SPDX-License-Identifier: Apache-2.0

package host

import (
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestWithoutResourceCapability has a containerd whose root cannot raise limits,
// as in many sandboxes: a limit of files that the client asks for is clamped to
// what there is, and said.
func TestWithoutResourceCapability(t *testing.T) {
	rig.Require(t, rig.Root, rig.Command("setpriv"), rig.Command("prlimit"))
	n := start(t, rig.Config{Wrap: []string{"prlimit", "--nofile=2048:4096", "setpriv", "--bounding-set", "-sys_resource"}}, image.Demo)
	n.proves(t)
	logged := n.Mark(t)
	r := n.run(t, []string{"--rlimit-nofile", "1024:1048576"}, "sh", "-c", "ulimit -Hn; ulimit -Sn; grep CapBnd /proc/self/status")
	got := strings.Fields(r.Must(t))
	// Inside, in a user namespace of its own, the container has the capability.
	if len(got) != 4 || got[0] != "4096" || got[1] != "1024" || got[3] != "000001ffffffffff" {
		t.Errorf("the container printed %q", got)
	}
	n.warned(t, logged, "RLIMIT_NOFILE was cut from 1048576 to 4096, the most this host grants (containerd runs without CAP_SYS_RESOURCE, or fs.nr_open is low)")
}
