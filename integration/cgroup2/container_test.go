// SPDX-License-Identifier: Apache-2.0

package cgroup2

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

const (
	shimName = rig.Shim
	root     = "/sys/fs/cgroup"
)

// node is a containerd with the shim under test and an image in which there are
// device nodes.
type node struct {
	*rig.Machine
	image   string
	systemd bool
}

func startNode(t *testing.T, runtime peer.Name) node {
	t.Helper()
	n := node{Machine: rig.MachineFor(t, rig.Config{Runc: runtime}), systemd: rig.IsBare()}
	// One range of ids only, so that all containers leave the same lock.
	// lxcfs gets the time that it needs under emulation. That systemd is to make the
	// cgroups the shim finds out.
	rig.Configure(t, `
[ids]
pool = ["1900019712-1900085247"]
[lxcfs]
mode = "require"
timeout_ms = 10000
`)
	n.image = n.Image(t, image.Inner)
	makeNodes(t, filepath.Join(n.Layers(t)[0], "nodes"))
	return n
}

// run returns the arguments of ctr run for a container.
func (n node) run(id string, flags []string, args ...string) []string {
	argv := []string{"run", "--runtime", shimName}
	if n.systemd {
		argv = append(argv, "--cgroup", "system.slice:isolate:"+id)
	}
	return slices.Concat(argv, flags, []string{n.image, id}, args)
}

// container is a running container.
type container struct {
	node
	id  string
	pid int
	// dir is its group on the host, owner the host's id of its root.
	dir   string
	owner uint32
}

func (n node) start(t *testing.T, id string, flags []string, args ...string) *container {
	t.Helper()
	c := &container{node: n, id: id}
	t.Cleanup(func() { c.remove(t) })
	n.Ctr(t.Context(), n.run(id, append(flags, "--detach"), args...)...).Must(t)
	c.pid = n.Container(id).Pid(t)
	proc := filepath.Join("/proc", strconv.Itoa(c.pid))
	group, ok := strings.CutPrefix(read(t, proc, "cgroup"), "0::/")
	if !ok {
		t.Fatalf("groups of process %d are %q", c.pid, group)
	}
	c.dir = filepath.Dir(filepath.Join(root, group)) // its init is in a leaf
	ids := strings.Fields(read(t, proc, "uid_map"))
	if len(ids) < 3 || ids[0] != "0" || ids[1] == "0" {
		t.Fatalf("ids of process %d are %q", c.pid, ids)
	}
	c.owner = uint32(number(t, ids[1])) //nolint:gosec // the kernel says so
	return c
}

// exec runs a script in the container and returns the values that it prints,
// one a line after its name.
func (c *container) exec(t *testing.T, script string) map[string]string {
	t.Helper()
	r := c.Container(c.id).Sh(t, script)
	values := map[string]string{}
	for line := range strings.Lines(r.Must(t)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		values[name] = value
	}
	if values["end"] != "reached" {
		t.Fatalf("script has not come to its end:\n%s%s", r.Stdout, r.Stderr)
	}
	return values
}

// remove may be called twice.
func (c *container) remove(t *testing.T) {
	t.Helper()
	c.Container(c.id).Remove(t)
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}
