// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestImage imports the image, of both architectures, and runs the one for this machine.
func TestImage(t *testing.T) {
	rig.Require(t, rig.Root)
	dist, files := built(t, "isolate-image-*.tar")
	if len(files) != 1 {
		t.Fatalf("not one image in ISOLATE_DIST=%q but %q: use make test-package", dist, files)
	}
	version := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(files[0]), "isolate-image-"), ".tar")
	m := rig.MachineFor(t, rig.Config{Isolate: true, Containerd: peer.Containerd24, Runc: peer.Runc15})
	m.Ctr(t.Context(), "images", "import", "--all-platforms", files[0]).Must(t)
	name := "docker.io/library/isolate:" + version
	if got := m.Run(t, name, "image", "/isolatectl", "version").Must(t); !strings.Contains(got, version) {
		t.Errorf("the image has version %q, want %s", got, version)
	}
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		if got := m.Ctr(t.Context(), "images", "ls", "name=="+name).Must(t); !strings.Contains(got, platform) {
			t.Errorf("the image is not for %s:\n%s", platform, got)
		}
	}
}
