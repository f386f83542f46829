// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/isolate-shim/isolate/integration/cache"
	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/internal/testprogram"
)

// shimName is the shim under test as clients name it.
const shimName = rig.Shim

// ociRuntimes are the OCI runtimes that everything must work with.
var ociRuntimes = []peer.Name{peer.Runc15, peer.Runc11, peer.Crun121, peer.Crun18}

// machine is a containerd with the shim under test and an imported image. The
// tests share one for each snapshotter, and choose the OCI runtime by configuration.
type machine struct {
	*rig.Machine
	reference string
	// logged is how long containerd's log was when the test began.
	logged int
}

// shared are the containerds that tests share.
var shared = map[string]*rig.Machine{}

// nodeOf returns the containerd of a version, with a snapshotter.
func nodeOf(t testing.TB, containerd peer.Name, snapshotter string) *rig.Machine {
	t.Helper()
	key := string(containerd) + "/" + snapshotter
	if shared[key] == nil {
		config := rig.Config{Containerd: containerd, Snapshotter: snapshotter}
		if ok, err := rig.Has(rig.MappedLayers); err == nil && !ok {
			// So that clients can map by themselves.
			config.TOML = "[plugins.'io.containerd.snapshotter.v1.overlayfs']\nslow_chown = true\n"
		}
		shared[key] = rig.SharedMachine(t, config)
	}
	return shared[key]
}

// machineFor returns the machine with a snapshotter and an image, configured for
// an OCI runtime and with more lines of configuration.
func machineFor(t *testing.T, runtime peer.Name, snapshotter string, name image.Name, lines ...string) machine {
	t.Helper()
	node := nodeOf(t, peer.Containerd24, snapshotter)
	m := machine{Machine: node, reference: node.Image(t, name), logged: node.Mark(t)}
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
	rig.Configure(t, strings.Join(lines, "\n")+"\n")
}

// run runs a container to its end, with options of ctr run.
func (m machine) run(t *testing.T, options []string, argv ...string) rig.Result {
	t.Helper()
	return m.Output(t, "run", slices.Concat([]string{"--rm", "--runtime", shimName}, options, []string{m.reference, "a"}, argv)...)
}

// start starts a container in the background. The test's end removes it.
func (m machine) start(t *testing.T, id string, options []string, argv ...string) {
	t.Helper()
	m.StartContainer(t, slices.Concat([]string{"--null-io"}, options), m.reference, id, argv...)
}

// exec runs a program in a running container.
func (m machine) exec(t *testing.T, id string, options []string, argv ...string) rig.Result {
	t.Helper()
	return m.Container(id).Exec(t, options, argv...)
}

// pid is a running container's init process.
func (m machine) pid(t *testing.T, id string) string {
	t.Helper()
	return strconv.Itoa(m.Container(id).Pid(t))
}

// said returns what the shim has logged since the test began, and warnings the
// warnings among it.
func (m machine) said(t *testing.T) []string     { t.Helper(); return m.Said(t, m.logged) }
func (m machine) warnings(t *testing.T) []string { t.Helper(); return m.Warnings(t, m.logged) }

const insideName = "inside-program"

// narrow are the 32-bit architectures whose programs the kernel of another one runs.
var narrow = map[string]string{"amd64": "386", "arm64": "arm"}

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
			if err := command.Run(ctx, "go", "build", "-trimpath", "-o", filepath.Join(w.Dir, "inside"), "./inside"); err != nil {
				return err
			}
			command.Env = append(command.Env, "GOARCH="+narrow[goruntime.GOARCH])
			return command.Run(ctx, "go", "build", "-trimpath", "-o", filepath.Join(w.Dir, "inside32"), "./inside")
		},
	})
}

// insideProgram is the path of the program that tests run in containers: a copy, as
// the cache may be on a file system that cannot be idmapped (9p, in a virtual
// machine).
func insideProgram(t *testing.T) string { return insideNamed(t, "inside") }

func insideNamed(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(rig.Dir(), name+"-program")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	dir, err := cache.Get(t.Context(), insideName)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(filepath.Join(dir, name))
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
