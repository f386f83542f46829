// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

var update = flag.Bool("update", false, "write the list of specs that pass with containerd's own shim; needs CRITEST=all")

// baseline lists the specs that pass with containerd's own shim, one a line.
const baseline = "testdata/passes"

// exception is a spec that passes with containerd's own shim and cannot under
// isolate, where a container always has a user namespace.
type exception struct {
	spec string // the end of its name
	why  string
	says string // a part of its failure, as a regular expression
}

var exceptions = []exception{
	{
		"runtime should support HostPID",
		"the kernel lets nobody mount the /proc of a process namespace that another user namespace owns",
		`container shares the host's pid namespace, .* drop the host pid setting`,
	},
	{
		"runtime should support HostIpc is true",
		"as with the process namespace, for /dev/mqueue",
		`container shares the host's ipc namespace, .* drop the host ipc setting`,
	},
	{
		"runtime should support NamespaceMode_NODE",
		"it wants the ids of the container to be the host's, which is what isolate is there to prevent",
		`expected log pattern .*0.*0.*4294967295`,
	},
	{
		"runtime should support Privileged is true",
		"CRI makes the network namespace of a pod without a mapping in the host's user namespace, whose root the container's is not",
		`brctl: bridge foobar: Operation not permitted`,
	},
	{
		"runtime should support adding capability",
		"as above: it asks for CAP_NET_ADMIN and makes a bridge",
		`brctl: bridge foobar: Operation not permitted`,
	},
	{
		"mount with 'rslave' should support propagation from host to container",
		"what the host mounts later arrives with the host's ids, which the kernel does not map, and is for its root alone (mode 0700)",
		`failed to execSync`,
	},
	{
		"mount with 'rshared' should support propagation from host to container and vice versa",
		"as above; and what is mounted in a user namespace never arrives outside",
		`failed to execSync`,
	},
}

// report is the part of a JUnit report that matters.
type report struct {
	Suites []struct {
		Cases []struct {
			Name    string `xml:"name,attr"`
			Status  string `xml:"status,attr"`
			Failure *struct {
				Message string `xml:"message,attr"`
				Text    string `xml:",chardata"`
			} `xml:"failure"`
			Error string `xml:"system-err"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

// outcome is what became of a spec: "passed", "skipped" or else, with the text of
// the failure.
type outcome struct{ status, text string }

// parts are halves of the suite, which spends most of its time waiting. The digest
// is of an image that cannot be made again.
var parts = [][]string{
	{"-ginkgo.focus", "Security Context"},
	{"-ginkgo.skip", "Security Context|image with digest"},
}

// critest runs the whole suite against a handler, each part on a node of its own
// and all at once, and returns what became of each spec.
func critest(t *testing.T, handler string, start func() *node) map[string]outcome {
	t.Helper()
	reports := make([]report, len(parts))
	errs := make([]error, len(parts))
	var group sync.WaitGroup
	for i, part := range parts {
		n := start()
		file := filepath.Join(t.TempDir(), "report.xml")
		group.Go(func() { reports[i], errs[i] = n.critest(t.Context(), handler, file, part) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	results := map[string]outcome{}
	for _, r := range reports {
		r.into(results)
	}
	return results
}

// critest runs a part of the suite.
func (n *node) critest(ctx context.Context, handler, file string, part []string) (r report, err error) {
	programs, err := peer.Get(ctx, peer.CRITools)
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, programs.Program("critest.test"), append([]string{
		"-runtime-endpoint", "unix://" + n.Address, "-runtime-handler", handler, "-ginkgo.junit-report", file, "-ginkgo.no-color",
	}, part...)...)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	command.WaitDelay = time.Second
	err = command.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		return r, fmt.Errorf("critest: %w, %w\n%s", err, ctx.Err(), tail(output.String(), 100))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return r, fmt.Errorf("critest: %w\n%s", err, tail(output.String(), 100))
	}
	return r, xml.Unmarshal(text, &r)
}

// into adds the outcome of each spec. Where there is one already, because specs
// share a name or the other part has skipped it, the worst counts.
func (r report) into(results map[string]outcome) {
	for _, suite := range r.Suites {
		for _, c := range suite.Cases {
			name, found := strings.CutPrefix(c.Name, "[It] ")
			if !found {
				continue // what runs before and after the suite
			}
			name, _, _ = strings.Cut(strings.TrimPrefix(name, "[k8s.io] "), " [")
			o := outcome{status: c.Status}
			if c.Failure != nil {
				o.text = c.Failure.Message + "\n" + c.Failure.Text + "\n" + tail(c.Error, 40)
			}
			if have, ok := results[name]; !ok || have.status == "skipped" || have.status == "passed" && o.status != "skipped" {
				results[name] = o
			}
		}
	}
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// withoutUsers gives the machine the accounts of the system alone: critest maps the
// ids from 1000 to 100999, and isolate refuses those that a user of the host has.
func withoutUsers(t *testing.T) {
	t.Helper()
	for _, file := range []string{"/etc/passwd", "/etc/group"} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var keep strings.Builder
		for line := range strings.Lines(string(content)) {
			fields := strings.Split(line, ":")
			if id, err := strconv.Atoi(fields[min(2, len(fields)-1)]); err == nil && (id < 1000 || id == 65534) {
				keep.WriteString(line)
			}
		}
		private := filepath.Join(t.TempDir(), "accounts")
		if err := os.WriteFile(private, []byte(keep.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(private, file, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(file, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCRITest runs the conformance suite of the CRI. Every spec that passes with
// containerd's own shim passes, but for the exceptions, which fail for the reason
// given.
func TestCRITest(t *testing.T) {
	runtimes := []peer.Name{peer.Crun121}
	all := os.Getenv("CRITEST") == "all"
	if all {
		runtimes = ociRuntimes
	}
	withoutUsers(t)
	_, registry := serveRegistry(t)
	if all {
		t.Run("runc.v2", func(t *testing.T) {
			rig.Require(t, rig.Root)
			results := critest(t, "runc", func() *node { return startNode(t, rig.Config{TOML: registry}) })
			summarize(t, results)
			var passed []string
			for name, o := range results {
				switch o.status {
				case "passed":
					passed = append(passed, name)
				case "skipped":
				default:
					t.Errorf("%s %s\n%s", name, o.status, o.text)
				}
			}
			slices.Sort(passed)
			text := strings.Join(passed, "\n") + "\n"
			if *update {
				if err := os.WriteFile(baseline, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if text != strings.Join(passing(t), "\n")+"\n" {
				t.Errorf("other specs pass than %s lists (go test -run TestCRITest/runc.v2 -args -update)", baseline)
			}
		})
	}
	for _, runtime := range runtimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			// The suite asks for less than isolate gives by default.
			rig.Configure(t, "caps = \"honor\"\nseccomp = \"keep\"\n")
			results := critest(t, handler, func() *node {
				return startNode(t, rig.Config{Runc: runtime, TOML: isolateStanza + registry})
			})
			summarize(t, results)
			for _, name := range passing(t) {
				o, ran := results[name]
				i := slices.IndexFunc(exceptions, func(e exception) bool { return strings.HasSuffix(name, e.spec) })
				switch {
				case !ran:
					t.Errorf("%s: not run", name)
				case i >= 0 && o.status == "passed":
					t.Errorf("%s passed: it is no exception any more", name)
				case i >= 0 && !regexp.MustCompile(`(?s)`+exceptions[i].says).MatchString(o.text):
					t.Errorf("%s %s for another reason:\n%s", name, o.status, o.text)
				case i >= 0:
					t.Logf("%s: %s", name, exceptions[i].why)
				case o.status != "passed":
					t.Errorf("%s %s\n%s", name, o.status, o.text)
				}
			}
		})
	}
}

func passing(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(baseline)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

func summarize(t *testing.T, results map[string]outcome) {
	t.Helper()
	count := map[string]int{}
	for _, o := range results {
		count[o.status]++
	}
	for _, status := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%d %s", count[status], status)
	}
}
