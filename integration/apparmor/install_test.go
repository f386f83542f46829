// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/shim/apparmor"
)

// TestInstall: install loads the profile, and uninstall takes it away.
func TestInstall(t *testing.T) {
	rig.Require(t, rig.Root, rig.AppArmor)
	parser(t, peer.AppArmor3)
	n := newest(t)
	ctl := func(command string, args ...string) string {
		argv := append([]string{filepath.Join(n.Bin, "isolatectl"), command, "--address", n.Address}, args...)
		return rig.Exec(context.Background(), argv...).Must(t)
	}
	t.Cleanup(func() { remove(t, apparmor.Name) }) // if the test fails in between
	flags := []string{"--programs-only", "--bin-dir", filepath.Join(t.TempDir(), "bin")}
	for range 2 { // it may run again
		if said := ctl("install", flags...); !strings.Contains(said, "loaded AppArmor profile "+apparmor.Name) {
			t.Errorf("install said %s", said)
		}
		if mode := loaded(t)[apparmor.Name]; mode != "(enforce)" {
			t.Errorf("after install the profile is %q", mode)
		}
	}
	if said := ctl("uninstall"); !strings.Contains(said, "removed AppArmor profile "+apparmor.Name) {
		t.Errorf("uninstall said %s", said)
	}
	if mode := loaded(t)[apparmor.Name]; mode != "" {
		t.Errorf("after uninstall the profile is %q", mode)
	}
	if _, err := os.Stat(apparmor.File); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", apparmor.File, err)
	}
}

// TestUnloadInUse: a profile under which containers run is not taken from them.
func TestUnloadInUse(t *testing.T) {
	rig.Require(t, rig.Root, rig.AppArmor, rig.CgroupV2)
	load(t, peer.AppArmor3)
	n := newest(t)
	id := n.start(t)
	r := rig.Exec(t.Context(), filepath.Join(n.Bin, "isolatectl"), "apparmor", "unload")
	if r.Err() == nil || !strings.Contains(r.Stderr, "processes run under it") {
		t.Errorf("unload: %v %s", r.Err(), r.Stderr)
	}
	if got := n.exec(t, id, label).Must(t); got != apparmor.Name+" (enforce)" {
		t.Errorf("the container runs under %q", got)
	}
}
