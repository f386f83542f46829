// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"testing"

	"github.com/isolate-shim/isolate/internal/linux/feature"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/internal/testmounts"
)

// TestProbesHere: on a kernel that should have it each probe says so, and leaves
// nothing behind.
func TestProbesHere(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	testmounts.WantProbes(t, dir, OverlayBy(MethodDetached, dir), OverlayBy(MethodPrivate, dir))
}

func TestProbeConcludes(t *testing.T) {
	t.Parallel()
	testmounts.RequireRoot(t)
	dir := testmounts.Dir(t)
	testmounts.Mount(t, "ramfs", dir+"/ram", "")
	// A file system without mapping says nothing about overlays, but a kernel without
	// any does.
	if !mount.MapsIDs() {
		return
	}
	if err := OverlayBy(MethodPrivate, dir+"/ram").Check(); err == nil || errors.Is(err, feature.ErrNotSupported) || !errors.Is(err, mount.ErrNotIDMappable) {
		t.Errorf("overlay on ramfs: %v", err)
	}
}
