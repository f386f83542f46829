// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/internal/linux/feature"
	"github.com/isolate-shim/isolate/internal/linux/userns"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

// TestProbesHere: on a kernel that should have it each probe says so, and leaves
// nothing behind.
func TestProbesHere(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	testmounts.WantProbes(t, dir, userns.Supported(), MappableAt(dir), MappableTmpfs(), AttachableBeneath(dir))
}

func TestProbesConclude(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	testmounts.Mount(t, "ramfs", dir+"/ram", "")
	if err := MappableAt(dir + "/ram").Check(); !errors.Is(err, feature.ErrNotSupported) || !strings.Contains(err.Error(), "5.12") {
		t.Errorf("ramfs: %v", err)
	}
	if err := MappableAt(dir + "/missing").Check(); err == nil || errors.Is(err, feature.ErrNotSupported) {
		t.Errorf("missing directory: %v", err)
	}
}
