// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/cmd/isolatectl/check"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// expect compares a line; Reason and Fix are to be contained.
func expect(t *testing.T, r check.Report, what string, want check.Line) {
	t.Helper()
	if got := find(t, r, what); got.Result != want.Result || !strings.Contains(got.Reason, want.Reason) || !strings.Contains(got.Fix, want.Fix) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// write writes a file of the rig's /etc for one test.
func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	})
}

// criTable is the name of the table that a containerd reads, as the rig writes
// files for it.
func criTable(name peer.Name) string {
	if name == peer.Containerd17 {
		return "plugins.'io.containerd.grpc.v1.cri'.containerd"
	}
	return "plugins.'io.containerd.cri.v1.runtime'.containerd"
}

// TestHandlers reads what check says of handlers in right and wrong forms, as
// each containerd prints its configuration.
func TestHandlers(t *testing.T) {
	for _, name := range []peer.Name{peer.Containerd24, peer.Containerd22, peer.Containerd17} {
		t.Run(string(name), func(t *testing.T) {
			rig.Require(t, rig.Root)
			built, err := rig.Built(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			shim := built["containerd-shim-isolate-v1"]
			elsewhere := filepath.Join(t.TempDir(), "renamed")
			link(t, shim, elsewhere)
			crun, err := peer.Get(t.Context(), peer.Crun121)
			if err != nil {
				t.Fatal(err)
			}
			node := rig.Containerd(t, rig.Config{
				Containerd: name, Isolate: true, CRI: true,
				TOML: strings.NewReplacer("T", "["+criTable(name), "RUNTIMES", ".runtimes.", "SHIM", shim, "LINK", elsewhere, "CRUN", crun.Program("crun")).Replace(`
TRUNTIMESrunc]
runtime_type = 'io.containerd.runc.v2'
TRUNTIMESown]
runtime_type = 'io.containerd.isolate.v1'
pod_annotations = ['io.containerd.isolate.*']
TRUNTIMESviarunc]
runtime_type = 'io.containerd.runc.v2'
runtime_path = 'LINK'
pod_annotations = ['io.containerd.isolate.*']
options = { BinaryName = 'CRUN' }
TRUNTIMESbypath]
runtime_type = 'SHIM'
pod_annotations = ['io.containerd.isolate.size']
TRUNTIMESopts]
runtime_type = 'io.containerd.isolate.v1'
pod_annotations = ['io.containerd.isolate.*']
options = { BinaryName = 'runc' }
TRUNTIMEStypo]
runtime_type = 'io.containerd.isolate.v2'
TRUNTIMESoci]
runtime_type = 'io.containerd.runc.v2'
options = { BinaryName = 'SHIM' }
TRUNTIMESsystemd]
runtime_type = 'io.containerd.runc.v2'
runtime_path = 'SHIM'
pod_annotations = ['io.containerd.isolate.*']
options = { SystemdCgroup = true }
TRUNTIMESgone]
runtime_type = 'io.containerd.runc.v2'
runtime_path = '/nowhere/containerd-shim-isolate-v1'
TRUNTIMESfuse]
runtime_type = 'io.containerd.isolate.v1'
snapshotter = 'stargz'
pod_annotations = ['io.containerd.isolate.*']
TRUNTIMESnocrun]
runtime_type = 'io.containerd.runc.v2'
runtime_path = 'SHIM'
options = { BinaryName = '/nowhere/crun' }
`),
			})
			r := check.Run(t.Context(), config(t, "annotations.allow = [\"nesting\", \"size\"]\n"))
			who := fmt.Sprintf(", process %d", node.Pid())
			for handler, want := range map[string]check.Line{
				"own":     {Result: check.OK, Reason: filepath.Join(node.Bin, "containerd-shim-isolate-v1") + ", which uses runc 1.5"},
				"viarunc": {Result: check.OK, Reason: "which uses crun 1.21"},
				"bypath":  {Result: check.Degraded, Reason: "io.containerd.isolate.nesting are allowed", Fix: "pod_annotations"},
				"opts":    {Result: check.Degraded, Reason: "options table", Fix: "remove"},
				"typo":    {Result: check.Failed, Reason: "containerd-shim-isolate-v2"},
				"oci":     {Result: check.Failed, Reason: "BinaryName is for OCI runtimes"},
				"systemd": {Result: check.Failed, Reason: "systemd, which does not run on this host", Fix: "SystemdCgroup = false"},
				"gone":    {Result: check.Failed, Reason: "cannot start the shim: stat /nowhere"},
				"fuse":    {Result: check.Failed, Reason: "stargz serves files by FUSE"},
				"nocrun":  {Result: check.Failed, Reason: "/nowhere/crun", Fix: "BinaryName"},
			} {
				expect(t, r, "CRI runtime "+handler+who, want)
			}
			for _, l := range r.Lines {
				if strings.HasPrefix(l.What, "CRI runtime runc") || strings.HasPrefix(l.What, "CRI runtimes") {
					t.Errorf("%+v", l)
				}
			}
		})
	}
}

// TestNoHandler takes what check says to add to a file, adds it, and looks again.
func TestNoHandler(t *testing.T) {
	for _, name := range []peer.Name{peer.Containerd24, peer.Containerd22, peer.Containerd17} {
		t.Run(string(name), func(t *testing.T) {
			rig.Require(t, rig.Root)
			node := rig.Containerd(t, rig.Config{Containerd: name, Isolate: true, CRI: true})
			r := check.Run(t.Context(), config(t, ""))
			what := fmt.Sprintf("CRI runtimes, process %d", node.Pid())
			expect(t, r, what, check.Line{Result: check.Note, Reason: "only Kubernetes needs one", Fix: "add this to "})
			_, stanza, _ := strings.Cut(find(t, r, what).Fix, "\n")
			file := mainFile(t, r, what)
			appendTo(t, file, stanza+"\n")
			// The clock of files and that of processes differ by rounding.
			later := time.Now().Add(time.Hour)
			if err := os.Chtimes(file, later, later); err != nil {
				t.Fatal(err)
			}
			r = check.Run(t.Context(), config(t, ""))
			changed := false
			for _, l := range r.Lines {
				changed = changed || l.Result == check.Degraded && strings.Contains(l.Reason, file+" was changed after it was started")
			}
			if !changed {
				t.Errorf("a changed file is not in %+v", r.Lines)
			}
			now := time.Now()
			if err := os.Chtimes(file, now, now); err != nil {
				t.Fatal(err)
			}
			isolate := func(want check.Line) {
				expect(t, check.Run(t.Context(), config(t, "")), fmt.Sprintf("CRI runtime isolate, process %d", node.Pid()), want)
			}
			if name != peer.Containerd17 {
				// containerd asks the shim once, and this one comes too late.
				isolate(check.Line{Result: check.Degraded, Reason: "does not know it yet", Fix: "restart containerd"})
				shim := filepath.Join(node.Bin, "containerd-shim-isolate-v1")
				if err := errors.Join(os.Rename(shim, shim+".later"), node.Restart(t.Context()), os.Rename(shim+".later", shim)); err != nil {
					t.Fatal(err)
				}
				isolate(check.Line{Result: check.Degraded, Reason: "hostUsers: false", Fix: "restart containerd"})
			}
			if err := node.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			isolate(check.Line{Result: check.OK, Reason: "starts "})
		})
	}
}

// TestMisplacedHandler has a handler in the table of an older containerd, which
// ignores it; from 2.4 on it does not.
func TestMisplacedHandler(t *testing.T) {
	rig.Require(t, rig.Root)
	node := rig.Containerd(t, rig.Config{Containerd: peer.Containerd22, Isolate: true, CRI: true})
	what := fmt.Sprintf("CRI runtimes, process %d", node.Pid())
	file := mainFile(t, check.Run(t.Context(), config(t, "")), what)
	appendTo(t, file, "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.isolate]\nruntime_type = 'io.containerd.isolate.v1'\n")
	if err := node.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, check.Run(t.Context(), config(t, "")), fmt.Sprintf("CRI runtimes, process %d", node.Pid()),
		check.Line{Result: check.Degraded, Reason: file + " has isolate in a table that this containerd does not read", Fix: "io.containerd.cri.v1.runtime"})
}

// mainFile is the file that check says to add a handler to.
func mainFile(t *testing.T, r check.Report, what string) string {
	t.Helper()
	head, _, _ := strings.Cut(find(t, r, what).Fix, "\n")
	return strings.TrimSuffix(strings.TrimPrefix(head, "add this to "), " and restart containerd:")
}

func appendTo(t *testing.T, file, text string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("\n" + text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestKubelet has a process of the kubelet's name, which is a shell that waits, and a
// containerd that tells it a cgroup driver.
func TestKubelet(t *testing.T) {
	rig.Require(t, rig.Root, rig.Command("bash"))
	node := rig.Containerd(t, rig.Config{
		Containerd: peer.Containerd22, Isolate: true, CRI: true,
		TOML: strings.NewReplacer("T", "["+criTable(peer.Containerd22)).Replace(`
T.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
options = { SystemdCgroup = true }
T.runtimes.isolate]
runtime_type = 'io.containerd.isolate.v1'
`),
	})
	other := rig.Containerd(t, rig.Config{Isolate: true, CRI: true})
	waiter(t, "kubelet", nil)
	r := check.Run(t.Context(), config(t, ""))
	expect(t, r, fmt.Sprintf("CRI runtime isolate, process %d", node.Pid()),
		check.Line{Result: check.OK, Reason: "cgroup driver systemd"})
	expect(t, r, fmt.Sprintf("CRI runtimes, process %d", other.Pid()), check.Line{Result: check.Degraded, Reason: "pods cannot use it"})
}

// TestContainerdNotRunning reads the file at its usual place.
func TestContainerdNotRunning(t *testing.T) {
	rig.Require(t, rig.Root)
	write(t, "/etc/containerd/config.toml", "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.isolate]\nruntime_type = 'io.containerd.isolate.v2'\n")
	r := check.Run(t.Context(), config(t, ""))
	expect(t, r, "CRI runtime isolate, /etc/containerd/config.toml", check.Line{Result: check.Failed, Reason: "containerd-shim-isolate-v2"})
	expect(t, r, "containerd", check.Line{Result: check.Degraded, Reason: "not running"})
}
