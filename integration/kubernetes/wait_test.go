// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// waitFor waits until something holds, or says what does not.
func waitFor(t *testing.T, holds func() bool, what func() string) {
	t.Helper()
	if !rig.Within(patience, holds) {
		t.Fatalf("after %s still not: %s", patience, what())
	}
}

// settled waits until the API server knows that the policy's binding is gone: it
// looks at policies in the background.
func (c *cluster) settled(t *testing.T) {
	t.Helper()
	waitFor(t, func() bool {
		r := c.kubectl(t.Context(), "run", "probe", "--image=none", "--dry-run=server", "-o", hostUsers,
			`--overrides={"spec": {"runtimeClassName": "isolate"}}`)
		return r.Err() == nil && r.Stdout == ""
	}, func() string { return "policy is gone" })
}
