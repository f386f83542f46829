// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os/exec"
	"slices"
	"testing"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestStarts counts the processes and threads that the life of a container takes, beside
// containerd's own shim for runc: what most of a container's cost is made of, and unlike
// times the same on a busy machine. Each start of a program of Go is some seven of them.
func TestStarts(t *testing.T) {
	rig.Require(t, rig.Root)
	runc, err := peer.Get(t.Context(), peer.Runc15)
	if err != nil {
		t.Fatal(err)
	}
	for _, nesting := range []string{"off", "full"} {
		m := demoMachine(t, peer.Runc15, `nesting = "`+nesting+`"`)
		upstream := func() {
			m.Ctr(t.Context(), "run", "--rm", "--runc-binary", runc.Program("runc"), m.reference, "a", "true").Must(t)
		}
		ours := func() { m.Ctr(t.Context(), "run", "--rm", "--runtime", shimName, m.reference, "a", "true").Must(t) }
		var took [2][]int
		for range 4 {
			for i, life := range []func(){upstream, ours} {
				before := newest(t)
				life()
				took[i] = append(took[i], newest(t)-before)
			}
		}
		for i := range took {
			took[i] = took[i][1:] // the first finds out what the runtime can do
			slices.Sort(took[i])
		}
		t.Logf("nesting %s: containerd's shim %d, isolate's %d", nesting, took[0], took[1])
		if theirs, ours := took[0][1], took[1][1]; ours > theirs*6/5 {
			t.Errorf("nesting %s: %d processes and threads, containerd's shim %d", nesting, ours, theirs)
		}
	}
}

// newest starts a process, and returns its number: the kernel counts up.
func newest(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}
