// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/cmd/isolatectl/check"
	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/shim/apparmor"
)

// withoutLocks allows everything but to lock files, as to the rest it is far wider
// than that of a strict snap.
const withoutLocks = ` flags=(attach_disconnected,mediate_deleted) {
  capability, network, mount, remount, umount, pivot_root, unix, dbus, signal, ptrace,
  change_profile -> **,
  /** rwlmix,
  / r,
}`

// checked runs isolatectl's check and returns the lines about a subject.
func checked(t *testing.T, what string) []check.Line {
	t.Helper()
	var lines []check.Line
	for _, l := range check.Run(t.Context(), t.TempDir()).Lines {
		if strings.HasPrefix(l.What, what) {
			lines = append(lines, l)
		}
	}
	return lines
}

// TestCheck looks at what isolatectl check says of the profile.
func TestCheck(t *testing.T) {
	rig.Require(t, rig.Root, rig.AppArmor)
	parser(t, peer.AppArmor3)
	for _, want := range []struct {
		result check.Result
		reason string
		fix    string
	}{
		{check.Degraded, "on, and the profile isolate-default is not loaded", "isolatectl apparmor load"},
		{check.OK, "containers get the profile isolate-default", ""},
	} {
		if want.result == check.OK {
			load(t, peer.AppArmor3)
		}
		lines := checked(t, "AppArmor")
		if len(lines) != 1 || lines[0].Result != want.result || !strings.Contains(lines[0].Reason, want.reason) || lines[0].Fix != want.fix {
			t.Errorf("got %+v, want %+v", lines, want)
		}
	}
}

// TestConfinedContainerd: a strictly confined snap's containerd cannot lock files,
// answers all the same, and has no store. The check finds out by trying.
func TestConfinedContainerd(t *testing.T) {
	rig.Require(t, rig.Root, rig.AppArmor)
	parser(t, peer.AppArmor3)
	const snap = "snap.microk8s.daemon-containerd"
	program := filepath.Join(program(t, peer.Containerd24), "containerd")
	define(t, snap, program+withoutLocks)
	log := watch(t)
	n := rig.Containerd(t, rig.Config{Isolate: true})
	lines := checked(t, fmt.Sprintf("containerd, process %d", n.Pid()))
	var found bool
	for _, l := range lines {
		if !strings.Contains(l.Reason, snap) {
			continue
		}
		found = true
		if l.Result != check.Failed || !strings.Contains(l.Reason, "denies file locks, tried in "+n.Root) || !strings.Contains(l.Fix, "--classic") || !strings.Contains(l.Fix, "rootless builder") {
			t.Errorf("%+v", l)
		}
	}
	if !found {
		t.Errorf("profile is not named in %+v", lines)
	}
	entries, err := os.ReadDir(n.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".isolate-check") {
			t.Errorf("the check left %s", e.Name())
		}
	}
	// What the kernel logs for the child is what it logs for containerd.
	var byChild, byContainerd int
	for _, line := range denied(log.next(t), snap) {
		if strings.Contains(line, `operation="file_lock"`) && strings.Contains(line, `.isolate-check-`) {
			byChild++
		}
		if strings.Contains(line, `operation="file_lock"`) && strings.Contains(line, `comm="containerd"`) && strings.Contains(line, "meta.db") {
			byContainerd++
		}
	}
	if byChild != 1 || byContainerd == 0 {
		t.Errorf("%d locks of the check and %d of containerd's store were denied", byChild, byContainerd)
	}
	// It serves, and cannot do a thing: that is why the check has to try.
	if err := n.Ctr(t.Context(), "version").Err(); err != nil {
		t.Error(err)
	}
	if _, err := n.Import(t.Context(), image.Inner); err == nil {
		t.Error("containerd works without locks")
	}
}

// TestConfinedWithLocks: another confinement than that is reported, and not as the
// end of everything.
func TestConfinedWithLocks(t *testing.T) {
	rig.Require(t, rig.Root, rig.AppArmor)
	parser(t, peer.AppArmor3)
	const name = "isolate-test-containerd"
	define(t, name, filepath.Join(program(t, peer.Containerd24), "containerd")+strings.Replace(withoutLocks, "rwlmix", "rwlkmix", 1))
	n := rig.Containerd(t, rig.Config{Isolate: true})
	for _, l := range checked(t, fmt.Sprintf("containerd, process %d", n.Pid())) {
		if strings.Contains(l.Reason, name) {
			if l.Result != check.Degraded || !strings.Contains(l.Reason, "it allows file locks") {
				t.Errorf("%+v", l)
			}
			return
		}
	}
	t.Error("the profile is not named")
}

// TestConfinedShim: a shim that may not lock says so in one sentence, with the
// profile and what to do.
func TestConfinedShim(t *testing.T) {
	rig.Require(t, rig.Root, rig.AppArmor, rig.CgroupV2)
	parser(t, peer.AppArmor3)
	n := newest(t)
	shim, err := filepath.EvalSymlinks(filepath.Join(n.Bin, "containerd-shim-isolate-v1"))
	if err != nil {
		t.Fatal(err)
	}
	const name = "isolate-test-shim"
	define(t, name, shim+withoutLocks)
	r := n.run(t, nil, "true")
	for _, part := range []string{"lock ", "AppArmor profile " + name + ", under which", "denies file locks", "--classic", "permission k", "permission denied"} {
		if !strings.Contains(r.Stderr, part) {
			t.Errorf("%q is not in: %s", part, r.Stderr)
		}
	}
	if r.Err() == nil {
		t.Error("the container ran")
	}
	if mode := loaded(t)[apparmor.Name]; mode != "" {
		t.Errorf("%s is loaded: %s", apparmor.Name, mode)
	}
}
