// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/isolate-shim/isolate/integration/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// built returns the directory of `make dist`, and the files there that match a pattern,
// of which there must be some.
func built(t *testing.T, pattern string) (dist string, files []string) {
	t.Helper()
	dist = os.Getenv("ISOLATE_DIST")
	files, err := filepath.Glob(filepath.Join(dist, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s in ISOLATE_DIST=%q (%v): use make test-package", pattern, dist, err)
	}
	return dist, files
}
