// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"os"
	"testing"

	"github.com/isolate-shim/isolate/integration/attacker"
	"github.com/isolate-shim/isolate/integration/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// program returns the attacker.
func program(t *testing.T) string {
	t.Helper()
	return build(t, attacker.Inside)
}

func build(t *testing.T, name string) string {
	t.Helper()
	path, err := attacker.Program(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestInsideProgram proves that the programs are there. make test-vm runs it first, on
// the host, since they are built where there is a compiler.
func TestInsideProgram(t *testing.T) {
	for _, name := range []string{attacker.Inside, attacker.Capacity} {
		if _, err := os.Stat(build(t, name)); err != nil {
			t.Error(err)
		}
	}
}
