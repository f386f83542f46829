// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"regexp"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// notOurs are things that are made when they are first needed and stay (the state
// of the id pool, the kubelet's groups for classes of pods), and one that goes
// when the kubelet collects dead sandboxes, which it does once a minute.
var notOurs = regexp.MustCompile(`^(\+1 mount nsfs nsfs on .*/pinned-namespaces/user|\+1 file /run/isolate/\.(ids|notify|runtime)(/(lock|cursor|slot\.\d+))?|\+1 cgroup /sys/fs/cgroup(/[^/]+)?/kubepods(/besteffort|/burstable)?)$`)

// leavesNothing demands that at the end of a test the node looks as it did
// before.
func leavesNothing(t *testing.T) {
	t.Helper()
	rig.NothingLeft(t, func(line string) bool {
		// What has gone was a probe just being made, of a pod that stays.
		return strings.HasPrefix(line, "-") || notOurs.MatchString(line)
	})
}
