// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// node is a containerd that the tests of one runtime share, since unpacking the
// images takes longer than most tests.
type node struct {
	*rig.Node
	imported map[image.Name]string
}

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
	before := rig.MustSnapshot(t)
	t.Cleanup(func() { rig.MustMatch(t, before) })
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
	started, err := rig.StartContainerd(context.Background(), rig.Config{Isolate: true, Runc: runtime})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Node: started, imported: map[image.Name]string{}}
	// The first container leaves what the shim has learnt of the runtime.
	run(t, n, image.Inner, nil, "true").Must(t)
	return n
}

func (n *node) image(t *testing.T, name image.Name) string {
	t.Helper()
	if _, ok := n.imported[name]; !ok {
		n.imported[name] = n.MustImport(t, name)
	}
	return n.imported[name]
}

// logged returns what shims have logged about a container.
func (n *node) logged(t *testing.T, id string) string {
	t.Helper()
	text, err := os.ReadFile(n.Log)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "isolate:") && strings.Contains(line, id) && !strings.Contains(line, "serving seccomp") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// configure sets the configuration of all later containers, until the test ends.
func configure(t *testing.T, toml string) {
	t.Helper()
	const file = "/etc/isolate/config.toml"
	if err := os.MkdirAll("/etc/isolate", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(toml), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	})
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
