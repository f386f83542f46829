// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"os"
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
	for _, p := range []*feature.Probe{
		userns.Supported(), MappableAt(dir), MappableTmpfs(), AttachableBeneath(dir),
	} {
		t.Run(p.Name, func(t *testing.T) { testmounts.RequireFeature(t, p) })
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if found := testmounts.Lines(t, dir); found != "" {
		t.Errorf("mounts left:\n%s", found)
	}
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
