// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// states are what a container's root does to outlive SIGKILL; package inside has
// them. The value is what the client does besides.
var endStates = []struct {
	name   string
	client func(t *testing.T, c *container)
}{
	{"plain", nil},
	{"paused", func(t *testing.T, c *container) { t.Helper(); c.node.Ctr(t.Context(), "tasks", "pause", c.id).Must(t) }},
	{"fuse-own", nil},
	{"fuse-many", nil},
	{"fuse-hidden", nil},
	{"fuse-next", nil},
	{"fuse-child", nil},
	{"fuse-server", nil},
	{"fuse-overlay", nil},
	{"fuse-orphan", nil},
	{"frozen", nil},
	{"throttled", nil},
	{"wide-cgroups", nil},
	{"many-children", nil},
	{"stopped", nil},
	{"traced", nil},
	{"keys", nil},
	{"timers", nil},
	{"queued", nil},
	{"pids-full", fillPIDs},
}

func limitPIDs(t *testing.T, id, limit string) {
	t.Helper()
	file := "/sys/fs/cgroup/pids/default/" + id + "/pids.max"
	if _, err := os.Stat(file); err != nil {
		file = "/sys/fs/cgroup/default/" + id + "/pids.max" // version 2
	}
	if err := os.WriteFile(file, []byte(limit), 0); err != nil {
		t.Fatal(err)
	}
}

// endRuntimes are those of the other tests, or those that the environment names.
func endRuntimes() []peer.Name {
	names := strings.Fields(os.Getenv("END_RUNTIMES"))
	if len(names) == 0 {
		return runtimes
	}
	var out []peer.Name
	for _, name := range names {
		out = append(out, peer.Name(name))
	}
	return out
}

// patience is how long the end of a container may take, on a busy machine.
const patience = time.Minute

// startSmall starts a node with an image that virtual machines have as well. Its ids
// are not those of other rigs on the machine, whose containers' FUSE connections are
// told apart by them.
func startSmall(t *testing.T, runtime peer.Name) node {
	t.Helper()
	first := (16_000 + 100*rand.N(100)) * 65536
	rig.Configure(t, fmt.Sprintf("[ids]\npool = [\"%d-%d\"]\n", first, first+100*65536-1))
	n := node{Machine: rig.MachineFor(t, rig.Config{Runc: runtime})}
	n.image = n.Image(t, image.Inner)
	return n
}

// fillPIDs lets the container have fewer processes than it has, so that nothing can
// fork in its group: no runtime either.
func fillPIDs(t *testing.T, c *container) {
	t.Helper()
	limitPIDs(t, c.id, "1")
	if r := c.node.Ctr(t.Context(), "tasks", "exec", "--exec-id", "full", c.id, "/inside", "fds"); r.Code == 0 {
		t.Error("a program was executed in a group that is full")
	}
}

// TestContainerThatDoesNotEnd ends containers whose root has done what it could
// against that: nothing may be left, nobody else may be harmed, and the id is free.
func TestContainerThatDoesNotEnd(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	for _, runtime := range endRuntimes() {
		t.Run(string(runtime), func(t *testing.T) {
			n := startSmall(t, runtime)
			neighbour := startState(t, n, "neighbour", "fuse-own")
			untouched := map[string]<-chan error{
				"a FUSE file system of the host": askHost(t, 0),
				// Only the host's root can say so; it is not the container's.
				"one of the host that has the neighbour's user": askHost(t, baseOf(t, neighbour.pid)),
			}
			for _, state := range endStates {
				t.Run(state.name, func(t *testing.T) {
					t.Run("kill", func(t *testing.T) { endState(t, n, state.name, state.client, (*container).kill) })
					t.Run("shim", func(t *testing.T) { endState(t, n, state.name, state.client, (*container).killShim) })
				})
			}
			if !waits(t, neighbour.pid) {
				t.Error("the neighbour's process does not wait for its server any more")
			}
			neighbour.kill(t)
			for name, answer := range untouched {
				select {
				case err := <-answer:
					t.Errorf("%s was ended: %v", name, err)
				default:
				}
			}
		})
	}
}

// TestTensOfThousandsOfGroups removes containers that have made as many groups as
// they may: 42,000 on version 1, where nothing bounds them but memory. That takes
// longer than `delete` has after a shim that was killed, and the rest goes when the
// next container starts.
func TestTensOfThousandsOfGroups(t *testing.T) {
	rig.Require(t, rig.Root)
	n := startSmall(t, endRuntimes()[0])
	before := rig.MustSnapshot(t)
	c := startState(t, n, "killed", "all-cgroups")
	started := time.Now()
	c.kill(t)
	gone(t, before)
	t.Logf("killed and removed after %v", time.Since(started).Round(time.Millisecond))

	c = startState(t, n, "shim", "all-cgroups")
	started = time.Now()
	c.killShim(t)
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", c.pid)); err == nil {
		t.Error("its first process lives")
	}
	t.Logf("removed from containerd after %v", time.Since(started).Round(time.Millisecond))
	next := startState(t, n, "next", "plain")
	var groups []string
	removed := rig.Within(3*patience, func() bool {
		var err error
		if groups, err = filepath.Glob("/sys/fs/cgroup/*/default/" + c.id); err != nil {
			t.Fatal(err)
		}
		return len(groups) == 0
	})
	if !removed {
		t.Fatalf("nobody removes %q", groups)
	}
	next.kill(t)
	startState(t, n, c.id, "plain").kill(t)
	gone(t, before)
	t.Logf("all is gone after %v", time.Since(started).Round(time.Millisecond))
}

// TestExecIntoOwnFuse starts a program in a directory whose server, the container's
// own, never answers: the runtime waits, and nobody else may wait for it.
func TestExecIntoOwnFuse(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE, rig.CgroupV1)
	for _, runtime := range endRuntimes() {
		t.Run(string(runtime), func(t *testing.T) {
			n := startNode(t, runtime)
			before := rig.MustSnapshot(t)
			c := startState(t, n, "hung", "fuse-own")
			ended := make(chan rig.Result, 2)
			for _, id := range []string{"first", "second"} {
				go func() {
					ended <- n.Ctr(context.WithoutCancel(t.Context()), "tasks", "exec", "--exec-id", id, "--cwd", "/tmp/own/directory", c.id, "/inside", "fds")
				}()
			}
			rig.Eventually(t, "runtime that waits for the server", func() bool { return execsThatWait(t, c) >= 2 })
			answers := func(args ...string) string {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				return n.Ctr(ctx, args...).Must(t)
			}
			if list := answers("tasks", "ls"); !strings.Contains(list, "RUNNING") {
				t.Error(list)
			}
			if list := answers("tasks", "ps", c.id); !strings.Contains(list, strconv.Itoa(c.pid)) {
				t.Error(list)
			}
			answers("tasks", "metrics", c.id)
			answers("tasks", "kill", "-s", "9", "--exec-id", "first", c.id)
			if r := <-ended; r.Code == 0 {
				t.Error("a killed process has succeeded")
			}
			c.kill(t)
			if r := <-ended; r.Code == 0 {
				t.Error("a program has run after the end of its container")
			}
			gone(t, before)
		})
	}
}

// execsThatWait counts the processes of a container's user namespace, beside the
// first one, that wait uninterruptibly.
func execsThatWait(t *testing.T, c *container) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", c.pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == c.pid {
			continue
		}
		if user, err := os.Readlink("/proc/" + e.Name() + "/ns/user"); err == nil && user == own {
			// For the server, or for the one that waits for it.
			if status, err := os.ReadFile("/proc/" + e.Name() + "/status"); err == nil && strings.Contains(string(status), "State:\tD") {
				n++
			}
		}
	}
	return n
}

// endState makes a state, ends the container in one of two ways, and makes one with
// the same id.
func endState(t *testing.T, n node, state string, client func(*testing.T, *container), end func(*container, *testing.T)) {
	before := rig.MustSnapshot(t)
	inside := state
	if client != nil {
		inside = "plain"
	}
	c := startState(t, n, "end-"+state, inside)
	if client != nil {
		client(t, c)
	}
	started := time.Now()
	end(c, t)
	t.Logf("ended after %v", time.Since(started).Round(time.Millisecond))
	gone(t, before)
	if list := rig.Exec(t.Context(), filepath.Join(n.Bin, "isolatectl"), "ids").Must(t); strings.Contains(list, c.id) {
		t.Errorf("a range is still held:\n%s", list)
	}
	startState(t, n, c.id, "plain").kill(t)
	gone(t, before)
}

// startState starts a container whose first process makes a state.
func startState(t *testing.T, n node, id, state string) *container {
	t.Helper()
	c := &container{node: n, id: id, output: filepath.Join(t.TempDir(), "output")}
	if err := os.WriteFile(c.output, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	n.StartContainer(t, []string{"--log-uri", "file://" + c.output, "--mount", "type=bind,src=" + program(t) + ",dst=/inside,options=rbind:ro"},
		n.image, id, "/inside", "end", state)
	c.await(t, "ready/"+state)
	c.pid = n.Container(id).Pid(t)
	return c
}

// kill kills and removes a container as a client does.
func (c *container) kill(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rig.Patiently(patience))
	defer cancel()
	for _, args := range [][]string{{"tasks", "kill", "-s", "9", c.id}, {"tasks", "rm", "--force", c.id}, {"containers", "rm", c.id}} {
		r := c.node.Ctr(ctx, args...)
		// The exit status of what was removed is that of rm.
		if err := r.Err(); err != nil && !strings.Contains(err.Error(), "non-zero exit code 137") {
			t.Fatal(err)
		}
	}
}

// killShim kills the container's shim, and waits until containerd has noticed.
func (c *container) killShim(t *testing.T) {
	t.Helper()
	if err := unix.Kill(parent(t, c.pid), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "end of the task", func() bool { return !strings.Contains(c.node.Ctr(t.Context(), "tasks", "ls").Must(t), c.id) })
	c.node.Ctr(t.Context(), "containers", "rm", c.id).Must(t)
}

func parent(t *testing.T, pid int) int {
	t.Helper()
	for line := range strings.Lines(read(t, fmt.Sprintf("/proc/%d/status", pid))) {
		if value, ok := strings.CutPrefix(line, "PPid:"); ok {
			return atoi(t, strings.TrimSpace(value))
		}
	}
	t.Fatalf("process %d has no parent", pid)
	return 0
}

// waits tells whether a thread of the process waits for a FUSE server.
func waits(t *testing.T, pid int) bool {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.Contains(read(t, file), "request_wait_answer") {
			return true
		}
	}
	return false
}

// askHost mounts a FUSE file system of the host, whose server never answers, and
// asks it.
func askHost(t *testing.T, owner int) <-chan error {
	t.Helper()
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	options := "fd=" + strconv.Itoa(device) + ",rootmode=40000,user_id=" + strconv.Itoa(owner) + ",group_id=0,allow_other"
	if err := unix.Mount("host", dir, "fuse", 0, options); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		var st unix.Stat_t
		answer <- unix.Stat(dir+"/file", &st)
		close(answer)
	}()
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(dir, unix.MNT_DETACH), unix.Close(device)); err != nil {
			t.Error(err)
		}
		<-answer //nolint:errcheck // it was ended by that
	})
	return answer
}
