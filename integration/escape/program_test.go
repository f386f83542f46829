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
	path, err := attacker.Program(t.Context(), attacker.Inside)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
