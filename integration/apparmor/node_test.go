// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// node is a containerd that all tests of one runtime share: to start one takes
// longer than most tests.
type node struct {
	*rig.Machine
	image string
}

var nodes = map[peer.Name]*node{}

func on(t *testing.T, runtime peer.Name) *node {
	t.Helper()
	if n := nodes[runtime]; n != nil {
		return n
	}
	configure(t, "")
	m := rig.SharedMachine(t, rig.Config{Runc: runtime})
	nodes[runtime] = &node{Machine: m, image: m.Image(t, image.Inner)}
	return nodes[runtime]
}

func newest(t *testing.T) *node { return on(t, peer.Runc15) }

// configure sets the configuration of later containers, which do without lxcfs.
func configure(t *testing.T, toml string) {
	t.Helper()
	if err := rig.WriteConfig(toml + "\n[lxcfs]\nmode = \"off\"\n"); err != nil {
		t.Fatal(err)
	}
}

var made int

// run runs a script in a container of its own.
func (n *node) run(t *testing.T, flags []string, script string) rig.Result {
	t.Helper()
	made++
	return n.Run(t, slices.Concat(flags, []string{n.image, fmt.Sprintf("c%d", made), "sh", "-c", script})...)
}

// start starts a container that waits, until the test ends.
func (n *node) start(t *testing.T, flags ...string) (id string) {
	t.Helper()
	return n.startImage(t, flags, []string{"sleep", "100000"})
}

// startImage starts a container, with the image's command if there is no other.
func (n *node) startImage(t *testing.T, flags, argv []string) (id string) {
	t.Helper()
	made++
	id = fmt.Sprintf("c%d", made)
	n.StartContainer(t, flags, n.image, id, argv...)
	return id
}

// awaitEnd waits until the first process of a container has ended.
func (n *node) awaitEnd(t *testing.T, id string) {
	t.Helper()
	if !rig.Within(patience, func() bool { _, state := n.Container(id).State(t); return state == "STOPPED" }) {
		t.Errorf("%s still runs", id)
	}
}

// exec runs a script in a container.
func (n *node) exec(t *testing.T, id, script string) rig.Result {
	t.Helper()
	return n.Ctr(t.Context(), slices.Concat([]string{"tasks", "exec"}, rig.ExecID(), []string{id, "sh", "-c", script})...)
}

// patience bounds how long what takes some seconds is waited for.
const patience = 2 * time.Minute

// await repeats a script in a container until it succeeds, and tells whether it did.
func (n *node) await(t *testing.T, id, script string) bool {
	t.Helper()
	return rig.Within(patience, func() bool {
		if n.exec(t, id, script).Err() == nil {
			return true
		}
		time.Sleep(time.Second) // a look costs much of the virtual machine's one processor
		return false
	})
}

// warnings returns what shims have warned of, since a position in the log, which it
// moves.
func (n *node) warnings(t *testing.T, from *int) []string {
	t.Helper()
	log := n.Since(t, *from)
	*from += len(log)
	return rig.Warnings(log)
}

// bind is a flag of ctr run.
func bind(source, destination, options string) string {
	return "--mount=type=bind,src=" + source + ",dst=" + destination + ",options=" + options
}

// program is the directory with the programs of a peer.
func program(t *testing.T, name peer.Name) string {
	t.Helper()
	p, err := peer.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(p.Dir, "bin")
}
