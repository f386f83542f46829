// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/attacker"
	"github.com/isolate-shim/isolate/integration/image"
	"github.com/isolate-shim/isolate/integration/rig"
)

// unchanged is what the host and other containers have while a container takes all
// that it gets.
const unchanged = "unchanged"

// capacities is the table of docs/security.md, which TestCapacity compares with
// this. What is not measured says so in its name, and what another test measures
// names that.
var capacities = []capacity{
	{
		name: "inotify instances", limit: "fs.inotify.max_user_instances", charged: "owner of the user namespace",
		host: unchanged, neighbour: unchanged, bounded: "the limit, for the container as a whole", hold: 1000, need: 10,
	},
	{
		name: "inotify watches", limit: "fs.inotify.max_user_watches", charged: "owner of the user namespace",
		host: unchanged, neighbour: unchanged, bounded: "the limit, and the memory limit", hold: 1 << 20, need: 1000,
	},
	{
		name: "fanotify groups", limit: "fs.fanotify.max_user_groups", charged: "owner of the user namespace",
		host: unchanged, neighbour: unchanged, bounded: "the seccomp profile: fanotify_init(2) is not allowed", hold: 1000, need: 10, denied: true,
	},
	{
		name: "pending signals", limit: "RLIMIT_SIGPENDING of the shim", charged: "owner of the user namespace",
		host: unchanged, neighbour: unchanged, bounded: "the limit; POSIX timers count here", hold: 1 << 20, need: 1000,
	},
	{
		name: "message queues", limit: "RLIMIT_MSGQUEUE of the shim", charged: "owner of the user namespace",
		host: unchanged, neighbour: unchanged, bounded: "the limit, 800 kB by default", hold: 1000, need: 3,
	},
	{
		name: "locked memory", limit: "RLIMIT_MEMLOCK of the shim", charged: "owner of the user namespace",
		host: unchanged, neighbour: unchanged, bounded: "the limit, and the memory limit", hold: 10000, need: 10,
	},
	{
		name: "pipes", limit: "fs.pipe-user-pages-soft", charged: "user of the container, on the host",
		host: unchanged, neighbour: unchanged, bounded: "the limit for each of its users, and the memory limit", hold: 1000, need: 3,
	},
	{
		name: "keys", limit: "kernel.keys.maxkeys, maxbytes", charged: "user of the container, on the host; no memory cgroup",
		host: unchanged, neighbour: unchanged, bounded: "the seccomp profile: add_key(2) is not allowed, keyctl(2) in part", hold: 10000, need: 10, denied: true,
	},
	{
		name: "processes", limit: "kernel.pid_max, kernel.threads-max", charged: "pids cgroup",
		host: unchanged, neighbour: unchanged, bounded: "the pids limit (docker run --pids-limit, podPidsLimit of the kubelet); without one, nothing", hold: 1000, need: 10,
	},
	{
		name: "memory groups, cgroup v2", limit: "65,535 ids", charged: "machine", host: unchanged, neighbour: unchanged,
		bounded: "cgroup.max_descendants (2,000), so that 32 containers together could use them up (`TestGroupsAreBounded`)",
	},
	{
		name: "memory groups, cgroup v1", limit: "65,535 ids", charged: "memory cgroup, 13 kB each",
		host: "what the container takes, the host has not", neighbour: "as the host",
		bounded: "the memory limit: below 800 MB for all ids (`TestMemoryLimitBoundsGroups`); without one, nothing",
	},
	{
		name: "terminals", limit: "kernel.pty.max", charged: "machine", counter: "/proc/sys/kernel/pty/nr",
		host:      "kernel.pty.reserve (1,024) are kept for it",
		neighbour: "what one container takes of the other 3,072, others have not", bounded: "nothing; raise kernel.pty.max", hold: 100,
	},
	{
		name: "asynchronous I/O", limit: "fs.aio-max-nr", charged: "machine", counter: "/proc/sys/fs/aio-nr",
		host:      "what the container takes, the host has not",
		neighbour: "as the host", bounded: "nothing; raise fs.aio-max-nr where databases run", hold: 20,
	},
	{
		name: "namespaces (not measured)", limit: "user.max_*_namespaces", charged: "owner of the user namespace",
		host: unchanged, neighbour: unchanged, bounded: "the limit, and the memory limit",
	},
	{
		name: "epoll watches (not measured)", limit: "fs.epoll.max_user_watches", charged: "user of the container, on the host",
		host: unchanged, neighbour: unchanged, bounded: "the memory limit",
	},
	{
		name: "open files, sockets, mounts, dentries, System V IPC, BPF (not measured)", limit: "fs.file-max, fs.mount-max and others", charged: "memory cgroup",
		host: unchanged, neighbour: unchanged, bounded: "the memory limit",
	},
}

// capacity is one resource. Words in it are those of docs/security.md.
type capacity struct {
	name, limit, charged, host, neighbour, bounded string
	// hold is how many a container tries to take; 0 for no attempt.
	hold int
	// need is how many everybody else must get meanwhile.
	need int
	// denied tells that containers get none at all.
	denied bool
	// counter is the file in which the kernel counts for the machine. It proves that
	// what the container has is missing elsewhere.
	counter string
}

// TestCapacityTable compares the data with the document.
func TestCapacityTable(t *testing.T) {
	document, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	want.WriteString("| resource | kernel's limit | charged to | host | other containers | bounded by |\n|---|---|---|---|---|---|\n")
	for _, c := range capacities {
		fmt.Fprintf(&want, "| %s | %s | %s | %s | %s | %s |\n", c.name, c.limit, c.charged, c.host, c.neighbour, c.bounded)
		if strings.Contains(c.bounded, "`Test") {
			continue // measured there
		}
		if measured := !strings.Contains(c.name, "(not measured)"); measured != (c.hold > 0) || measured && (c.host == unchanged) != (c.counter == "") {
			t.Errorf("%s: what is said of it is not what is measured", c.name)
		}
	}
	if !strings.Contains(string(document), want.String()) {
		t.Errorf("docs/security.md has not this table:\n%s", want.String())
	}
}

// TestCapacity has one container take all that it gets of each resource, and the
// host's root, a user of the host and another container take what they need.
func TestCapacity(t *testing.T) {
	rig.Require(t, rig.Root, rig.CgroupV1)
	program, err := attacker.Program(t.Context(), attacker.Capacity)
	if err != nil {
		t.Fatal(err)
	}
	for _, runtime := range runtimes {
		t.Run(string(runtime), func(t *testing.T) {
			n := node{Node: rig.Containerd(t, rig.Config{Isolate: true, Runc: runtime})}
			n.image = n.MustImport(t, image.Demo)
			other := holder(t, n, program)
			for _, c := range capacities {
				if c.hold > 0 {
					t.Run(c.name, func(t *testing.T) { c.measure(t, n, program, other) })
				}
			}
		})
	}
}

func (c capacity) measure(t *testing.T, n node, program, other string) {
	greedy := holder(t, n, program)
	if c.name == "processes" {
		if err := os.WriteFile(filepath.Join("/sys/fs/cgroup/pids/default", greedy, "pids.max"), []byte("200"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := c.count(t)
	got, why := c.take(t, n, greedy)
	t.Logf("the container has %d (%s)", got, why)
	if c.counter != "" {
		if counted := c.count(t) - before; got != c.hold || counted < got {
			t.Errorf("the container has %d of %d (%s), and the kernel counts %d for the machine", got, c.hold, why, counted)
		}
		return
	}
	if got == c.hold || c.denied && got > 0 {
		t.Errorf("nothing has stopped the container at %d", got)
	}
	need := strconv.Itoa(c.need)
	for who, uid := range map[string]uint32{"root of the host": 0, "a user of the host": 12345} {
		out, err := onHost(t, program, uid, "take", c.name, need)
		if err != nil || strings.Fields(out)[0] != need {
			t.Errorf("%s gets %s of %s, %v", who, out, need, err)
		}
	}
	if c.denied {
		return
	}
	execs++
	out := n.Ctr(t.Context(), "tasks", "exec", "--exec-id", fmt.Sprintf("e%d", execs), other, "/capacity", "take", c.name, need).Must(t)
	if strings.Fields(out)[0] != need {
		t.Errorf("another container gets %s of %s", out, need)
	}
}

// onHost runs the program as a user of the host, who could not find it by its path.
func onHost(t *testing.T, program string, uid uint32, args ...string) (string, error) {
	t.Helper()
	file, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	command := exec.CommandContext(t.Context(), "/proc/self/fd/3", args...)
	command.ExtraFiles = []*os.File{file}
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := command.CombinedOutput()
	return string(out), err
}

// count reads how many there are on the machine.
func (c capacity) count(t *testing.T) int {
	t.Helper()
	if c.counter == "" {
		return 0
	}
	text, err := os.ReadFile(c.counter)
	if err != nil {
		t.Fatal(err)
	}
	return atoi(t, strings.TrimSpace(string(text)))
}

// holder starts a container that waits.
func holder(t *testing.T, n node, program string) string {
	t.Helper()
	made++
	c := &container{node: n, id: fmt.Sprintf("h%d", made)}
	t.Cleanup(func() { c.remove(t) })
	n.Ctr(t.Context(), "run", "-d", "--null-io", "--runtime", runtimeName, "--mount", "type=bind,src="+program+",dst=/capacity,options=rbind:ro", n.image, c.id, "sleep", "1000").Must(t)
	return c.id
}

// take has a container take what it gets, and keep it.
func (c capacity) take(t *testing.T, n node, id string) (got int, why string) {
	t.Helper()
	execs++
	output := filepath.Join(t.TempDir(), "output")
	if err := os.WriteFile(output, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	n.Ctr(t.Context(), "tasks", "exec", "--detach", "--log-uri", "file://"+output, "--exec-id", fmt.Sprintf("e%d", execs), id,
		"/capacity", "hold", c.name, strconv.Itoa(c.hold)).Must(t)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if line := read(t, output); strings.HasSuffix(line, "\n") {
			number, why, _ := strings.Cut(strings.TrimSpace(line), " ")
			return atoi(t, number), why
		}
	}
	t.Fatalf("container %s has not said what it got", id)
	return 0, ""
}
