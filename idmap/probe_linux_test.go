// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestProbesHere: on a kernel that should have it each probe says so, and leaves
// nothing behind.
func TestProbesHere(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	dir := workDir(t)
	for _, p := range []*Probe{
		UserNamespaces(), MappableAt(dir), MappableTmpfs(), OverlayBy(MethodDetached, dir), OverlayBy(MethodPrivate, dir), MountBeneath(dir),
	} {
		t.Run(p.Name, func(t *testing.T) { requireFeature(t, p) })
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if found := mountLines(t, dir); found != "" {
		t.Errorf("mounts left:\n%s", found)
	}
}

func TestProbesConclude(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	dir := workDir(t)
	mount(t, "ramfs", dir+"/ram", "")
	if err := MappableAt(dir + "/ram").Check(); !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), "5.12") {
		t.Errorf("ramfs: %v", err)
	}
	if err := MappableAt(dir + "/missing").Check(); err == nil || errors.Is(err, ErrNotSupported) {
		t.Errorf("missing directory: %v", err)
	}
	// A file system without mapping says nothing about overlays, but a kernel without
	// any does.
	if !idMaps() {
		return
	}
	if err := OverlayBy(MethodPrivate, dir+"/ram").Check(); err == nil || errors.Is(err, ErrNotSupported) || !errors.Is(err, ErrNotIDMappable) {
		t.Errorf("overlay on ramfs: %v", err)
	}
}

// TestProbeRemembers: only conclusive answers are kept.
func TestProbeRemembers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		err   error
		calls int
	}{
		{name: "yes", calls: 1},
		{name: "no", err: ErrNotSupported, calls: 1},
		{name: "perhaps", err: os.ErrPermission, calls: 3},
	} {
		calls := 0
		p := &Probe{Name: tc.name, Version: "9.9", Fn: func() error { calls++; return tc.err }}
		for range 3 {
			if err := p.Check(); !errors.Is(err, tc.err) {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
		if calls != tc.calls {
			t.Errorf("%s: asked %d times, want %d", tc.name, calls, tc.calls)
		}
	}
}
