// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"errors"
	"os"
	"testing"
	"time"
)

// waitFor waits until something holds, or says what does not.
func waitFor(t *testing.T, holds func() bool, what func() string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not: %s", patience, what())
		}
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

// configure sets the configuration of all later containers, until the test ends.
func configure(t *testing.T, toml string) {
	t.Helper()
	const file = "/etc/isolate/config.toml"
	if err := errors.Join(os.MkdirAll("/etc/isolate", 0o755), os.WriteFile(file, []byte(toml), 0o644)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	})
}
