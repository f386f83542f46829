// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// node is a containerd that the tests of one runtime share, since unpacking the
// images takes longer than most tests.
type node struct{ *rig.Machine }

var nodes = map[peer.Name]*node{}

// on returns the node with a runtime. The test has to leave the rig as it finds
// it.
func on(t *testing.T, runtime peer.Name) *node {
	t.Helper()
	return onAll(t, []peer.Name{runtime})[0]
}

// onAll is on for a test that uses several nodes at a time.
func onAll(t *testing.T, runtimes []peer.Name) []*node {
	t.Helper()
	rig.Require(t, rig.Root, rig.FUSE)
	var list []*node
	for _, runtime := range runtimes {
		if nodes[runtime] == nil {
			nodes[runtime] = startNode(t, runtime)
		}
		list = append(list, nodes[runtime])
	}
	rig.NothingLeft(t)
	return list
}

// startNode starts a node, and lxcfs with the first.
func startNode(t *testing.T, runtime peer.Name) *node {
	t.Helper()
	if len(nodes) == 0 {
		if _, err := rig.StartLxcfs(context.Background(), peer.Lxcfs5, ""); err != nil {
			t.Fatal(err)
		}
	}
	n := &node{rig.SharedMachine(t, rig.Config{Runc: runtime})}
	// The first container leaves what the shim has learnt of the runtime.
	run(t, n, image.Inner, nil, "true").Must(t)
	return n
}

// logged returns what shims have logged about a container.
func (n *node) logged(t *testing.T, id string) string {
	t.Helper()
	return strings.Join(slices.DeleteFunc(n.Said(t, 0), func(line string) bool {
		return !strings.Contains(line, id) || strings.Contains(line, "serving seccomp")
	}), "\n")
}

// each runs a test with a runtime.
func each(t *testing.T, runtimes []peer.Name, test func(t *testing.T, n *node)) {
	t.Helper()
	for _, runtime := range runtimes {
		t.Run(string(runtime), func(t *testing.T) { test(t, on(t, runtime)) })
	}
}

var (
	newest = []peer.Name{peer.Runc15}
	both   = []peer.Name{peer.Runc15, peer.Crun121}
)
