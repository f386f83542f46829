// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/rig"
)

const runtimeName = rig.Shim

// patience bounds how long a test waits for what is to happen.
const patience = 60 * time.Second

// container is a running container under test.
type container struct {
	node *node
	id   string
	// output is what its first process prints.
	output string
	// address is its own, on the network of the node.
	address string
	pid     string
	// begun is when it was started.
	begun time.Time
}

// age is how long it has run at most.
func (c *container) age() time.Duration { return time.Since(c.begun) }

// made and execs number containers and processes; some tests are parallel.
var made, execs atomic.Int32

// start runs a container in the background, with the flags of ctr run, and
// connects it to the node's network. It goes away with the test.
func start(t *testing.T, n *node, name image.Name, flags []string, argv ...string) *container {
	t.Helper()
	number := made.Add(1)
	c := &container{
		node: n, id: fmt.Sprintf("c%d", number), output: filepath.Join(t.TempDir(), "output"),
		address: fmt.Sprintf("10.88.70.%d", 10+number%200), begun: time.Now(),
	}
	if err := os.WriteFile(c.output, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	reference := n.Image(t, name)
	t.Cleanup(func() { c.remove(t) })
	n.Ctr(t.Context(), slices.Concat(
		[]string{"run", "-d", "--runtime", runtimeName, "--log-uri", "file://" + c.output},
		flags, []string{reference, c.id}, argv)...).Must(t)
	c.connect(t)
	return c
}

// run runs a container to its end and returns what became of it.
func run(t *testing.T, n *node, name image.Name, flags []string, argv ...string) rig.Result {
	t.Helper()
	return n.Run(t, slices.Concat(flags, []string{n.Image(t, name), fmt.Sprintf("c%d", made.Add(1))}, argv)...)
}

// connect gives the container a link to the bridge of the node.
func (c *container) connect(t *testing.T) {
	t.Helper()
	c.pid = strconv.Itoa(c.node.Container(c.id).Pid(t))
	link := "v" + c.pid
	for _, argv := range [][]string{
		{"ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", c.pid},
		{"ip", "link", "set", link, "master", "node0", "up"},
		{"nsenter", "-t", c.pid, "-n", "ip", "link", "set", "lo", "up"},
		{"nsenter", "-t", c.pid, "-n", "ip", "address", "add", c.address + "/24", "dev", "eth0"},
		{"nsenter", "-t", c.pid, "-n", "ip", "link", "set", "eth0", "up"},
		{"nsenter", "-t", c.pid, "-n", "ip", "route", "add", "default", "via", "10.88.70.1"},
	} {
		rig.Exec(t.Context(), argv...).Must(t)
	}
}

func (c *container) remove(t *testing.T) {
	if t.Failed() {
		text, _ := os.ReadFile(c.output)
		lines := strings.Split(string(text), "\n")
		t.Logf("%s printed:\n%s\nshim:\n%s", c.id, strings.Join(lines[max(0, len(lines)-30):], "\n"), c.node.logged(t, c.id))
	}
	c.node.Container(c.id).Remove(t)
}

// restart ends the container and starts it again.
func (c *container) restart(t *testing.T) {
	t.Helper()
	c.node.Ctr(t.Context(), "tasks", "rm", "--force", c.id).Must(t)
	c.node.Ctr(t.Context(), "tasks", "start", "-d", "--log-uri", "file://"+c.output, c.id).Must(t)
	c.connect(t)
}

// try runs a shell script in the container as root.
func (c *container) try(t *testing.T, script string) rig.Result {
	t.Helper()
	return c.as(t, "0", script)
}

// as runs a shell script in the container as a user.
func (c *container) as(t *testing.T, user, script string) rig.Result {
	t.Helper()
	return c.node.Ctr(t.Context(), "tasks", "exec", "--exec-id", fmt.Sprintf("e%d", execs.Add(1)), "--user", user, c.id, "sh", "-c", script)
}

// sh runs a shell script that must succeed, and returns what it prints.
func (c *container) sh(t *testing.T, script string) string {
	t.Helper()
	r := c.try(t, script)
	if r.Err() != nil {
		t.Fatalf("in container: %s\nexited with %d\n%s%s", script, r.Code, r.Stdout, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

// expect fails the test, and lets it go on, unless a script prints just this.
func (c *container) expect(t *testing.T, want, script string) {
	t.Helper()
	r := c.try(t, script)
	if got := strings.TrimSpace(r.Stdout); got != want || r.Err() != nil {
		t.Errorf("in container: %s\nexited with %d, printed %q, want %q\n%s", script, r.Code, got, want, r.Stderr)
	}
}

// await repeats a script until it succeeds.
func (c *container) await(t *testing.T, script string) {
	t.Helper()
	r := c.try(t, fmt.Sprintf("for i in $(seq 600); do { %s; } >/tmp/await.%d 2>&1 && exit 0; sleep 0.1; done; cat /tmp/await.%[2]d >&2; exit 1", script, execs.Add(1)))
	if err := r.Err(); err != nil {
		t.Fatalf("in container, for a minute: %v", err)
	}
}

// awaitLong is await for what takes longer than half a minute; diagnosis is a
// script whose output tells why it did not come.
func (c *container) awaitLong(t *testing.T, script, diagnosis string) {
	t.Helper()
	const limit = 100 // seconds; a call may take two minutes
	r := c.try(t, fmt.Sprintf("end=$(($(date +%%s)+%d)); while [ $(date +%%s) -lt $end ]; do { %s; } && exit 0; sleep 0.2; done; exit 1", limit, script))
	if r.Err() != nil {
		t.Fatalf("in container, for %d s: %s\n%s", limit, script, c.try(t, diagnosis).Stdout)
	}
}

// awaitEnd waits until the container's first process has ended.
func (c *container) awaitEnd(t *testing.T) {
	t.Helper()
	if !rig.Within(patience, func() bool { _, state := c.node.Container(c.id).State(t); return state == "STOPPED" }) {
		t.Fatalf("container %s still runs:\n%s", c.id, c.try(t, "ps axf; systemctl list-jobs | grep running; journalctl -n 20 --no-pager").Stdout)
	}
}

// bind is a flag of ctr run.
func bind(source, destination, options string) []string {
	return []string{"--mount", "type=bind,src=" + source + ",dst=" + destination + ",options=" + options}
}

// inner are the flags that give a container an archive of an image for the
// containers in it, at /inner.tar.
func inner(t *testing.T) []string {
	t.Helper()
	i, err := image.Get(t.Context(), image.Inner)
	if err != nil {
		t.Fatal(err)
	}
	return bind(i.Path, "/inner.tar", "rbind:ro")
}

const innerReference = "docker.io/local/inner:1"
