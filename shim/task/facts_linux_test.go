// SPDX-License-Identifier: Apache-2.0

package task

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/spec"
)

// namespaced starts a process that has namespaces of its own, all of one user namespace,
// and returns where they are.
func namespaced(t *testing.T) (pid proc.ID, at func(kind string) string) {
	t.Helper()
	cmd := exec.Command("cat") // until the pipe is closed
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
	}
	if err := cmd.Start(); err != nil {
		if os.Getuid() != 0 {
			t.Skipf("needs root, or user namespaces for everybody: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	p, err := proc.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	return p.ID(), func(kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", p.PID(), kind) }
}

// TestFacts: a namespace that a spec joins belongs to the host, to a container of ours,
// or to somebody else.
func TestFacts(t *testing.T) {
	t.Parallel()
	pod, inPod := namespaced(t)
	other, inOther := namespaced(t)
	mapping := idmap.Contiguous(200000, 1000)
	type paths map[specs.LinuxNamespaceType]string
	type owned map[specs.LinuxNamespaceType]spec.Owner
	const network, pids, user = specs.NetworkNamespace, specs.PIDNamespace, specs.UserNamespace
	net, self, somebodys := inPod("net"), "/proc/self/ns/net", inOther("pid")
	for _, c := range []struct {
		name   string
		joins  paths
		shim   bool // has another container of the pod
		joined owned
		peer   bool
	}{
		{"nothing", nil, false, nil, false},
		{"the host's", paths{network: self}, false, owned{network: spec.OwnerHost}, false},
		{"somebody's", paths{pids: somebodys}, false, owned{pids: spec.OwnerOther}, false},
		{"a container's of another shim", paths{network: net}, false, owned{network: spec.OwnerSandbox}, false},
		{"all of a container's", paths{network: net, user: inPod("user")}, false, owned{network: spec.OwnerSandbox, user: spec.OwnerSandbox}, false},
		{"another user namespace", paths{network: net, user: inOther("user")}, false, owned{network: spec.OwnerSandbox, user: spec.OwnerOther}, false},
		{"a container's of the pod", paths{network: net, pids: somebodys}, true, owned{network: spec.OwnerSandbox, pids: spec.OwnerOther}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ours := &record.Record{Version: record.Version, Namespace: w.ns, ID: "pod", Bundle: w.mkdir("pod"), Init: &pod, Mapping: mapping, Lease: &w.ids[0]}
			if err := ours.Save(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(w.sweep)
			if c.shim {
				w.peerOf(ours, other)
			}
			for kind, path := range c.joins {
				w.join(kind, path)
			}
			n := creationOf(&container{id: "a"})
			n.service, n.namespace, n.doc = w.Service, w.ns, &spec.Document{Spec: w.spec}
			got, err := n.facts(w.ctx())
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(got.Joined, c.joined) {
				t.Errorf("joined: %v, want %v", got.Joined, c.joined)
			}
			joins := got.Joined[specs.NetworkNamespace] == spec.OwnerSandbox
			if s := got.Sandbox; (s != nil) != joins || joins && (s.ID != "pod" || s.Mode != spec.ModeOwn || s.Userns != inPod("user") || !s.Mapping.Equal(mapping)) {
				t.Errorf("sandbox: %+v", s)
			}
			if p := got.Peer; (p != nil) != c.peer || p != nil && p.Userns != inOther("user") {
				t.Errorf("peer: %+v", p)
			}
		})
	}
}

// peerOf puts a container into the shim that shares ids with one of a record.
func (w *world) peerOf(sandbox *record.Record, init proc.ID) {
	peer := &container{id: "peer", sandbox: &spec.Sandbox{ID: sandbox.ID, Mode: spec.ModeOwn}, record: &record.Record{Init: &init, Mapping: sandbox.Mapping}}
	w.mu.Lock()
	w.containers[peer.id] = peer
	w.mu.Unlock()
	w.t.Cleanup(func() {
		w.mu.Lock()
		delete(w.containers, peer.id)
		w.mu.Unlock()
	})
}
