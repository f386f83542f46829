// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestCheckpoint proves that a checkpoint is CRIU's to make, or not: of a pod that
// is mapped as with containerd's own shim, and of one that is not it says what
// stands in the way. In any case the container goes on.
func TestCheckpoint(t *testing.T) {
	rig.Require(t, rig.Root)
	criu, err := peer.Get(t.Context(), peer.Criu)
	if err != nil {
		t.Fatal(err)
	}
	// CRIU would call iptables, which it only needs for open connections.
	if err := errors.Join(os.MkdirAll("/etc/criu", 0o755), os.WriteFile("/etc/criu/default.conf", []byte("network-lock skip\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll("/etc/criu"); err != nil {
			t.Error(err)
		}
	})
	// CRIU cannot describe the stand-ins for sysctls.
	rig.Configure(t, "nesting = \"off\"\nlxcfs.mode = \"off\"\n")
	n := startNode(t, rig.Config{TOML: isolateStanza, Programs: map[string]string{"criu": criu.Program("criu")}})
	n.importBusybox(t)
	checkpoint := func(handler string, config message) (failure string) {
		p, r := n.tryPod(t, handler, config)
		r.Must(t)
		c := p.container(t, merge(security(config, message{}), message{"command": []string{"sh", "-c", "while :; do sleep 1; done"}}))
		file := filepath.Join(t.TempDir(), "checkpoint.tar")
		r = n.try("checkpoint", "--export", file, c.id)
		if got := c.sh(t, "echo on"); got != "on" {
			t.Errorf("afterwards the container printed %q", got)
		}
		if r.Code == 0 {
			list := rig.Exec(t.Context(), "tar", "tf", file).Must(t)
			for _, part := range []string{"checkpoint/pages-1.img", "spec.dump", "config.dump"} {
				if !strings.Contains(list, part) {
					t.Errorf("%q is not in the archive:\n%s", part, list)
				}
			}
			return ""
		}
		log := filepath.Join(n.State, "io.containerd.runtime.v2.task/k8s.io", c.id, "criu-dump.log")
		refused(t, r, "criu failed", log)
		return rig.Exec(t.Context(), "grep", "-o", "Error.*", log).Must(t)
	}
	if got := checkpoint(handler, own()); !strings.Contains(got, "namespaces doesn't belong to the target user namespace") {
		t.Errorf("a pod that is not mapped: %q", got)
	}
	theirs, ours := checkpoint("runc", mapped(300000)), checkpoint(handler, mapped(400000))
	if (theirs == "") != (ours == "") || strings.Contains(theirs, "Can't get rlimit") != strings.Contains(ours, "Can't get rlimit") {
		t.Errorf("a pod that is mapped: %q, with containerd's own shim %q", ours, theirs)
	}
}
