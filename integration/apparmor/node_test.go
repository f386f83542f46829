// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

const shimName = "io.containerd.isolate.v1"

// node is a containerd that all tests of one runtime share: to start one takes
// longer than most tests.
type node struct {
	*rig.Node
	image string
}

var nodes = map[peer.Name]*node{}

func on(t *testing.T, runtime peer.Name) *node {
	t.Helper()
	if n := nodes[runtime]; n != nil {
		return n
	}
	started, err := rig.StartContainerd(context.Background(), rig.Config{Isolate: true, Runc: runtime})
	if err != nil {
		t.Fatal(err)
	}
	configure(t, "")
	nodes[runtime] = &node{Node: started, image: started.MustImport(t, image.Inner)}
	return nodes[runtime]
}

func newest(t *testing.T) *node { return on(t, peer.Runc15) }

// configure sets the configuration of later containers, which do without lxcfs.
func configure(t *testing.T, toml string) {
	t.Helper()
	if err := os.MkdirAll("/etc/isolate", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/etc/isolate/config.toml", []byte(toml+"\n[lxcfs]\nmode = \"off\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

var made, execs int

// run runs a script in a container of its own.
func (n *node) run(t *testing.T, flags []string, script string) rig.Result {
	t.Helper()
	made++
	argv := slices.Concat([]string{"run", "--rm", "--runtime", shimName}, flags, []string{n.image, fmt.Sprintf("c%d", made), "sh", "-c", script})
	return n.Ctr(t.Context(), argv...)
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
	t.Cleanup(func() {
		ctx := context.Background()
		for _, argv := range [][]string{{"tasks", "rm", "--force", id}, {"containers", "rm", id}} {
			if err := n.Ctr(ctx, argv...).Err(); err != nil && !strings.Contains(err.Error(), "not found") {
				t.Error(err)
			}
		}
	})
	n.Ctr(t.Context(), slices.Concat([]string{"run", "--detach", "--runtime", shimName}, flags, []string{n.image, id}, argv)...).Must(t)
	return id
}

// awaitEnd waits until the first process of a container has ended.
func (n *node) awaitEnd(t *testing.T, id string) {
	t.Helper()
	for deadline := time.Now().Add(rig.Patiently(patience)); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		for line := range strings.Lines(n.Ctr(t.Context(), "tasks", "ls").Must(t)) {
			if fields := strings.Fields(line); len(fields) == 3 && fields[0] == id && fields[2] == "STOPPED" {
				return
			}
		}
	}
	t.Errorf("%s still runs", id)
}

// exec runs a script in a container.
func (n *node) exec(t *testing.T, id, script string) rig.Result {
	t.Helper()
	execs++
	return n.Ctr(t.Context(), "tasks", "exec", "--exec-id", fmt.Sprintf("e%d", execs), id, "sh", "-c", script)
}

// patience bounds how long what takes some seconds is waited for.
const patience = 2 * time.Minute

// await repeats a script in a container until it succeeds, and tells whether it did.
func (n *node) await(t *testing.T, id, script string) bool {
	t.Helper()
	for deadline := time.Now().Add(rig.Patiently(patience)); time.Now().Before(deadline); time.Sleep(time.Second) {
		if n.exec(t, id, script).Err() == nil {
			return true
		}
	}
	return false
}

// warnings returns what shims have warned of, since a position in the log, which it
// moves.
func (n *node) warnings(t *testing.T, from *int) []string {
	t.Helper()
	text, err := os.ReadFile(n.Log)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(text[*from:])) {
		if strings.Contains(line, "level=warning") && strings.Contains(line, "isolate: ") {
			out = append(out, line)
		}
	}
	*from = len(text)
	return out
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
