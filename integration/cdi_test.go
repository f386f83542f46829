// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// TestNvidiaDevice gives a container a device of the kind of a GPU.
func TestNvidiaDevice(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			script, want := rig.GPU(t, "660")
			if got := m.run(t, []string{"--device", rig.GPUName}, "sh", "-c", script).Must(t); got != want {
				t.Errorf("printed\n%s\nwant\n%s", got, want)
			}
		})
	}
}
