// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/spec"
)

// TestChownNeedsOneRange: a mapping of several ranges is no case for a chown.
func TestChownNeedsOneRange(t *testing.T) {
	t.Parallel()
	m := idmap.Mapping{
		UIDs: []idmap.Range{{Host: 100000, Size: 1000}, {Container: 1000, Host: 200000, Size: 64536}},
		GIDs: []idmap.Range{{Host: 100000, Size: 65536}},
	}
	_, err := (&rootfsMount{Stage: New(Linux, t.TempDir(), ""), source: rootfs.Parse(nil, t.TempDir()), target: t.TempDir(), ids: m}).chowned(t.Context())
	if !errors.Is(err, spec.ErrRefused) || !strings.Contains(err.Error(), "are not one range") {
		t.Errorf("got %v", err)
	}
}

// TestRefusalNamesTheSetting: an administrator is told kernel, file system and
// both ways out.
func TestRefusalNamesTheSetting(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{
		&mount.NotIDMappableError{Path: "/r", FSType: "ramfs", Kernel: "5.10.0"},
		&rootfs.UnbuildableError{Path: "/r", FSType: "ramfs", Kernel: "5.10.0"},
	} {
		err := refusal("rootfs", cause)
		if !errors.Is(err, errUnmappable) || !errors.Is(err, spec.ErrRefused) {
			t.Errorf("%v cannot be told from others", err)
		}
		for _, part := range []string{"5.10.0", "ramfs", "Linux 5.19", `rootfs.fallback = "chown"`} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
	}
	for _, cause := range []error{
		&mount.NotIDMappableError{Path: "/r", FSType: "overlay", Kernel: "6.18.1"},
		&rootfs.UnbuildableError{Path: "/r", FSType: "ext4", Kernel: "6.18.1"},
	} {
		if err := refusal("rootfs", cause); strings.Contains(err.Error(), "Linux 5.19") || !strings.Contains(err.Error(), "ext4, xfs, btrfs") {
			t.Errorf("%q blames a kernel that is new enough", err)
		}
	}
	if err := refusal("rootfs", os.ErrNotExist); errors.Is(err, errUnmappable) {
		t.Errorf("%v is taken for what a chown can help", err)
	}
}
