// SPDX-License-Identifier: Apache-2.0

package sysctl

import (
	"fmt"
	"os"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

func TestMain(m *testing.M) {
	if os.Getenv("ISOLATE_TEST_ON_MACHINE") != "1" {
		fmt.Fprintln(os.Stderr, "these tests change sysctls of the whole machine: run make test-vm")
		if rig.NoSkip() {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(rig.Bare(m))
}
