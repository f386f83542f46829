// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// has tells whether the kernel has a feature; that one which should have it lacks
// it fails the test.
func has(t *testing.T, feature rig.Requirement) bool {
	t.Helper()
	ok, err := rig.Has(feature)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// TestKernelFeatures fails on a kernel that lacks what one of its version should
// have, and tells what this one has.
func TestKernelFeatures(t *testing.T) {
	rig.Require(t, rig.Root)
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	for _, feature := range []rig.Requirement{rig.MappedMounts, rig.MappedLayers, rig.MappedTmpfs, rig.MountBeneath, rig.DetachedLayers} {
		t.Logf("%s: %s: %v", unix.ByteSliceToString(name.Release[:]), feature, has(t, feature))
	}
}

// TestKernelChoosesMethod proves that what a kernel can is what is done when
// nothing is configured: a root file system by the newest method that works, or,
// before id-mapped layers, a refusal that says what to do.
func TestKernelChoosesMethod(t *testing.T) {
	for _, runtime := range []peer.Name{peer.Runc15, peer.Crun121} {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			if !has(t, rig.MappedLayers) {
				r := m.run(t, nil, "true")
				for _, part := range []string{"rootfs", "use Linux 5.19 or newer"} {
					if r.Code == 0 || !strings.Contains(r.Stderr, part) {
						t.Errorf("status %d, stderr %q, want %q in it", r.Code, r.Stderr, part)
					}
				}
				return
			}
			m.start(t, "a", nil, "sleep", "1000")
			method := "private"
			if has(t, rig.DetachedLayers) {
				method = "detached"
			}
			checkMethod(t, m, method)
			m.exec(t, "a", nil, "touch", "/new").Must(t)
			if got := ownerOf(t, filepath.Join(m.upper(t, "a"), "new")); got != "0:0" {
				t.Errorf("a new file belongs to %s on disk", got)
			}
			if w := m.warnings(t); len(w) > 0 {
				t.Errorf("warnings: %q", w)
			}
		})
	}
}

// TestKernelTmpfsVolume proves that a volume on a tmpfs, as those with a pod's
// token, has the right owners where the kernel can, and that otherwise what all
// may read is read all the same, and one warning says why the owners are not
// right.
func TestKernelTmpfsVolume(t *testing.T) {
	for _, runtime := range []peer.Name{peer.Runc15, peer.Crun121} {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.MappedLayers)
			m := demoMachine(t, runtime)
			dir := shortDir(t)
			mountTmpfs(t, dir, unix.MS_NOSUID|unix.MS_NODEV)
			if err := os.WriteFile(dir+"/token", []byte("secret\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			const script = "stat -c %u:%g /volume/token; cat /volume/token"
			got := m.run(t, volume(dir, "/volume", "rbind:ro"), "sh", "-c", script).Must(t)
			w := m.warnings(t)
			if has(t, rig.MappedTmpfs) {
				if got != "0:0\nsecret" || len(w) > 0 {
					t.Errorf("container printed %q, warnings %q", got, w)
				}
				return
			}
			if got != "65534:65534\nsecret" {
				t.Errorf("container printed %q", got)
			}
			if len(w) != 1 || !strings.Contains(w[0], "volume /volume: ") || !strings.Contains(w[0], "tmpfs cannot be id-mapped by kernel ") ||
				!strings.Contains(w[0], "its files keep their host owners and show as nobody") {
				t.Errorf("warnings are %q, want one that names the volume, its file system and the kernel", w)
			}
			configure(t, runtime, "[volumes]\nrequire_idmap = true")
			r := m.run(t, volume(dir, "/volume", "rbind:ro"), "true")
			if r.Code == 0 || !strings.Contains(r.Stderr, "volumes.require_idmap is set") {
				t.Errorf("with require_idmap: status %d, stderr %q", r.Code, r.Stderr)
			}
		})
	}
}

// TestInsideProgram proves that the program which tests run in containers is
// there, and runs. make test-vm runs it first, on the host, since it is built
// where there is a compiler.
func TestInsideProgram(t *testing.T) {
	rig.Require(t, rig.Root)
	r := answer[reported](t, rig.Exec(t.Context(), insideProgram(t), "report"))
	if r.UID != 0 || len(r.Namespaces) == 0 {
		t.Errorf("it reports %+v", r)
	}
}
