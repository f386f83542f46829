// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/cache"
	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// shimName is the shim under test as clients name it.
const shimName = "io.containerd.isolate.v1"

// ociRuntimes are the OCI runtimes that everything must work with.
var ociRuntimes = []peer.Name{peer.Runc15, peer.Runc11, peer.Crun121, peer.Crun18}

// machine is a containerd with the shim under test and an imported image. The
// tests share one for each snapshotter, because importing takes seconds, and
// choose the OCI runtime by configuration.
type machine struct {
	*rig.Node
	reference string
	// logged is how long containerd's log was when the test began.
	logged int64
}

// nodes are the containerds that tests share, and images are those that are
// imported into them.
var (
	nodes  = map[string]*rig.Node{}
	images = map[*rig.Node]map[image.Name]string{}
)

// nodeOf returns the containerd of a version, with a snapshotter.
func nodeOf(t testing.TB, containerd peer.Name, snapshotter string) *rig.Node {
	t.Helper()
	key := string(containerd) + "/" + snapshotter
	if node, ok := nodes[key]; ok {
		return node
	}
	config := rig.Config{Isolate: true, Containerd: containerd, Snapshotter: snapshotter}
	if ok, err := rig.Has(rig.MappedLayers); err == nil && !ok {
		// So that clients can map by themselves.
		config.TOML = "[plugins.'io.containerd.snapshotter.v1.overlayfs']\nslow_chown = true\n"
	}
	node, err := rig.StartContainerd(context.WithoutCancel(t.Context()), config)
	if err != nil {
		t.Fatal(err)
	}
	nodes[key], images[node] = node, map[image.Name]string{}
	return node
}

// imported returns the reference of an image, which is imported once.
func imported(t testing.TB, node *rig.Node, name image.Name) string {
	t.Helper()
	reference, ok := images[node][name]
	if !ok {
		reference = node.MustImport(t, name)
		images[node][name] = reference
	}
	return reference
}

// machineFor returns the machine with a snapshotter and an image, configured for
// an OCI runtime and with more lines of configuration.
func machineFor(t *testing.T, runtime peer.Name, snapshotter string, name image.Name, lines ...string) machine {
	t.Helper()
	node := nodeOf(t, peer.Containerd24, snapshotter)
	m := machine{Node: node, reference: imported(t, node, name)}
	m.logged = int64(len(m.log(t)))
	configure(t, runtime, lines...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the shim said:\n%s", strings.Join(m.said(t), "\n"))
		}
	})
	return m
}

// demo is the image that most tests use.
func demo() image.Name {
	if rig.Slow() {
		return image.DemoSmall
	}
	return image.Demo
}

// demoMachine is the machine that most tests use.
func demoMachine(t *testing.T, runtime peer.Name, lines ...string) machine {
	t.Helper()
	return machineFor(t, runtime, "overlayfs", demo(), lines...)
}

// configure writes the shim's configuration for one test: lxcfs is off, which
// has tests of its own, unless a line begins with "[lxcfs]". Lines before the
// first table are keys without one.
func configure(t *testing.T, runtime peer.Name, lines ...string) {
	t.Helper()
	binary, err := peer.Get(t.Context(), runtime)
	if err != nil {
		t.Fatal(err)
	}
	lines = append(slices.Clone(lines), fmt.Sprintf("[runtime]\nbinary = %q", binary.Program(binary.Programs()[0])))
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "[lxcfs]") }) {
		lines = append(lines, "[lxcfs]\nmode = \"off\"")
	}
	const file = "/etc/isolate/config.toml"
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(file); err != nil {
			t.Error(err)
		}
	})
}

// run runs a container to its end, with options of ctr run.
func (m machine) run(t *testing.T, options []string, argv ...string) rig.Result {
	t.Helper()
	return m.output(t, "run", slices.Concat([]string{"--rm", "--runtime", shimName}, options, []string{m.reference, "a"}, argv)...)
}

// output runs a command of ctr, such as "tasks exec", that starts a process. The
// result's Stdout is what the process printed, to whichever stream. It goes
// through a file, because ctr loses the output of a process that ends before ctr
// has opened its pipes (client/task.go, Task.Delete, cancels that), which happens
// on busy machines, with any shim.
func (m machine) output(t *testing.T, command string, args ...string) rig.Result {
	t.Helper()
	dir, err := os.MkdirTemp("", "o")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "output")
	r := m.Ctr(t.Context(), slices.Concat(strings.Fields(command), []string{"--log-uri", "file://" + path}, args)...)
	r.Stdout = text(path)
	return r
}

// start starts a container in the background. The test's end removes it.
func (m machine) start(t *testing.T, id string, options []string, argv ...string) {
	t.Helper()
	t.Cleanup(func() { m.remove(t, id) })
	m.Ctr(t.Context(), slices.Concat([]string{"run", "--detach", "--null-io", "--runtime", shimName}, options, []string{m.reference, id}, argv)...).Must(t)
}

// remove removes a container in any state; one that is gone is no error.
func (m machine) remove(t *testing.T, id string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for _, argv := range [][]string{{"tasks", "rm", "--force", id}, {"containers", "rm", id}} {
		if r := m.Ctr(ctx, argv...); r.Err() != nil && r.Code != 137 && !strings.Contains(r.Stderr, "not found") {
			t.Errorf("remove %q: %v", id, r.Err())
		}
	}
}

// exec runs a program in a running container.
func (m machine) exec(t *testing.T, id string, options []string, argv ...string) rig.Result {
	t.Helper()
	return m.output(t, "tasks exec", slices.Concat([]string{"--exec-id", "x"}, options, []string{id}, argv)...)
}

// pid is a running container's init process.
func (m machine) pid(t *testing.T, id string) string {
	t.Helper()
	for line := range strings.Lines(m.Ctr(t.Context(), "tasks", "ls").Must(t)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			return f[1]
		}
	}
	t.Fatalf("container %q is not running", id)
	return ""
}

func (m machine) log(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(m.Log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// said returns what the shim has logged since the test began.
func (m machine) said(t *testing.T) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(m.log(t)[m.logged:]) {
		if strings.Contains(line, "isolate: ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// warnings returns the warnings among what the shim has said.
func (m machine) warnings(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(m.said(t), func(line string) bool { return !strings.Contains(line, "level=warning") })
}

const insideName = "inside-program"

func init() {
	cache.Register(cache.Item{
		Name: insideName,
		Resolve: func(context.Context) (cache.Inputs, error) {
			sources, err := filepath.Glob("inside/*.go")
			inputs := cache.Inputs{Version: "work"}
			for _, path := range sources {
				text, readErr := os.ReadFile(path)
				if readErr != nil {
					return inputs, readErr
				}
				inputs.Parts = append(inputs.Parts, path, string(text))
			}
			return inputs, err
		},
		Make: func(ctx context.Context, w cache.Work) error {
			command := cache.Command{Env: []string{"CGO_ENABLED=0"}, Log: w.Log}
			return command.Run(ctx, "go", "build", "-trimpath", "-o", filepath.Join(w.Dir, "inside"), "./inside")
		},
	})
}

// insideProgram is the path of the program that tests run in containers: a copy, as
// the cache may be on a file system that cannot be idmapped (9p, in a virtual
// machine).
func insideProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(rig.Dir(), "inside-program")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	dir, err := cache.Get(t.Context(), insideName)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(filepath.Join(dir, "inside"))
	if err == nil {
		err = testprogram.Write(path, string(program))
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// withInside are the options that put that program into a container at /inside.
func withInside(t *testing.T) []string {
	t.Helper()
	return volume(insideProgram(t), "/inside", "rbind:ro")
}

// volume are the options that bind a source into a container.
func volume(source, destination, options string) []string {
	return []string{"--mount", "type=bind,src=" + source + ",dst=" + destination + ",options=" + options}
}

// reported is the answer of "inside report".
type reported struct {
	UID, GID                           int
	Groups                             []int
	UIDMap, GIDMap                     string
	Namespaces, Status, Files, Sysctls map[string]string
}

// attempt is one of the answers of "inside unlock".
type attempt struct{ Path, Flag, Op, Error string }

// answer decodes what a program printed as JSON.
func answer[T any](t *testing.T, r rig.Result) T {
	t.Helper()
	var value T
	if err := json.Unmarshal([]byte(r.Must(t)), &value); err != nil {
		t.Fatalf("%v: %q", err, r.Stdout)
	}
	return value
}
