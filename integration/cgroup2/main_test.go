// SPDX-License-Identifier: Apache-2.0

package cgroup2

import (
	"os"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

// onMachine asks for the tests to run on the machine itself, for the systemd
// driver. What they change of it is not undone.
const onMachine = "ISOLATE_TEST_ON_MACHINE"

func TestMain(m *testing.M) {
	if os.Getenv(onMachine) == "1" {
		os.Exit(rig.Bare(m))
	}
	os.Exit(rig.Main(m))
}
