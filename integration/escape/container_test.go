// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

const runtimeName = rig.Shim

// node is a containerd with an image that has device nodes in it.
type node struct {
	*rig.Machine
	image string
	// keys are those of the session that it was started in, by name.
	keys map[string]int
}

func startNode(t *testing.T, runtime peer.Name) node {
	t.Helper()
	keys := session(t)
	n := node{keys: keys, Machine: rig.MachineFor(t, rig.Config{Runc: runtime})}
	n.image = n.Image(t, image.Demo)
	makeNodes(t, filepath.Join(n.Layers(t)[0], "escape-nodes"))
	return n
}

// makeNodes makes a directory of device nodes that everybody may open.
func makeNodes(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := disk(t)
	for name, n := range map[string]struct {
		kind         uint32
		major, minor uint32
	}{
		"disk": {unix.S_IFBLK, d[0], d[1]}, "loop": {unix.S_IFBLK, 7, 0},
		"mem": {unix.S_IFCHR, 1, 1}, "port": {unix.S_IFCHR, 1, 4}, "kmsg": {unix.S_IFCHR, 1, 11},
		"tty0": {unix.S_IFCHR, 4, 0}, "console": {unix.S_IFCHR, 5, 1}, "ptmx": {unix.S_IFCHR, 5, 2}, "pts": {unix.S_IFCHR, 136, 0},
		"loop-control": {unix.S_IFCHR, 10, 237}, "kvm": {unix.S_IFCHR, 10, 232}, "snapshot": {unix.S_IFCHR, 10, 231},
		"null": {unix.S_IFCHR, 1, 3},
	} {
		path := filepath.Join(dir, name)
		if err := unix.Mknod(path, n.kind, int(unix.Mkdev(n.major, n.minor))); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// attempt is a line that package inside prints.
type attempt struct{ Name, Result, Detail string }

func parse(t *testing.T, text string) []attempt {
	t.Helper()
	var out []attempt
	for line := range strings.Lines(text) {
		var a attempt
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		out = append(out, a)
	}
	return out
}

// container is a container with an attacker in it.
type container struct {
	node   node
	id     string
	output string
	// dir has a directory for each volume.
	dir string
	pid int
}

var made int

// volumes are the directories that a container gets, and how.
var volumes = map[string]string{
	"ro": "rbind:ro", "rw": "rbind:rw", "slave": "rbind:rw:rslave", "shared": "rbind:rw:rshared", "facts": "rbind:ro",
}

// makeVolumes makes the directories on a disk.
func makeVolumes(t *testing.T) string {
	t.Helper()
	made++
	dir := filepath.Join(rig.Dir(), fmt.Sprintf("volumes%d", made))
	for name := range volumes {
		if err := os.MkdirAll(filepath.Join(dir, name, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"up", "work"} { // of an overlay
		if err := os.Mkdir(filepath.Join(dir, "ro", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"ro/file", "file", "rw/image"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("original"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	makeNodes(t, filepath.Join(dir, "rw", "nodes"))
	return dir
}

// start starts a container whose first process lists its descriptors and then
// watches the others.
func start(t *testing.T, n node, dir string, flags ...string) *container {
	t.Helper()
	made++
	c := &container{node: n, id: fmt.Sprintf("c%d", made), output: filepath.Join(t.TempDir(), "output"), dir: dir}
	if err := os.WriteFile(c.output, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, options := range volumes {
		flags = append(flags, "--mount", "type=bind,src="+filepath.Join(dir, name)+",dst=/vol/"+name+",options="+options)
	}
	flags = append(flags,
		"--mount", "type=bind,src="+filepath.Join(dir, "file")+",dst=/vol/file,options=rbind:ro",
		"--mount", "type=bind,src="+program(t)+",dst=/inside,options=rbind:ro",
		"--memory-limit", "134217728", "--cpu-quota", "150000", "--cpu-period", "100000", "--cpuset-cpus", "0")
	n.StartContainer(t, slices.Concat([]string{"--log-uri", "file://" + c.output}, flags), n.image, c.id, "/inside", "init")
	c.await(t, "watching")
	c.pid = n.Container(c.id).Pid(t)
	return c
}

// await waits until the first process has reported something.
func (c *container) await(t *testing.T, name string) {
	t.Helper()
	var text []byte
	reported := func() bool {
		var err error
		if text, err = os.ReadFile(c.output); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(text), `"`+name+`"`)
	}
	if !rig.Within(patience, reported) {
		t.Fatalf("container %s has not reported %q: %s", c.id, name, text)
	}
}

// run runs the attacker, and returns what it reports.
func (c *container) run(t *testing.T, flags []string, args ...string) []attempt {
	t.Helper()
	r := c.node.Ctr(t.Context(), slices.Concat([]string{"tasks", "exec"}, rig.ExecID(), flags, []string{c.id}, args)...)
	if r.Err() != nil {
		t.Errorf("%v", r.Err())
	}
	return parse(t, r.Stdout)
}

// first returns what the first process has reported.
func (c *container) first(t *testing.T) []attempt {
	t.Helper()
	text, err := os.ReadFile(c.output)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}
