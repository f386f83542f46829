// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isolate-shim/isolate/integration/attacker"
	"github.com/isolate-shim/isolate/integration/rig"
)

// unchanged is what the host and other containers have while a container takes all
// that it gets.
const unchanged = "unchanged"

const memoryLimit = "the memory limit"

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
		name: "terminals", limit: "kernel.pty.max", charged: "machine", counter: number("/proc/sys/kernel/pty/nr"),
		host:      "kernel.pty.reserve (1,024) are kept for it",
		neighbour: "what one container takes of the other 3,072, others have not", bounded: "nothing; raise kernel.pty.max", hold: 100,
	},
	{
		name: "asynchronous I/O", limit: "fs.aio-max-nr", charged: "machine", counter: number("/proc/sys/fs/aio-nr"),
		host:      "what the container takes, the host has not",
		neighbour: "as the host", bounded: "nothing; raise fs.aio-max-nr where databases run", hold: 20,
	},
	{
		name: "TCP buffers", limit: "net.ipv4.tcp_mem", charged: "machine; cgroup v2: memory cgroup as well", counter: tcpPages,
		host:      "what the container takes, the host has not",
		neighbour: "as the host", bounded: "cgroup v2: the memory limit, if it is below net.ipv4.tcp_mem; v1: nothing", hold: 8,
	},
	{
		name: "neighbour entries (ARP, NDP)", limit: "net.ipv4.neigh.default.gc_thresh3, net.ipv6", charged: "machine", counter: neighbourEntries,
		host:      "what the container takes, the host has not",
		neighbour: "as the host", bounded: "nothing; raise gc_thresh3, which is 1,024 by default", hold: 200,
	},
	{
		name: "compiled packet filters", limit: "net.core.bpf_jit_limit", charged: "machine; memory cgroup, more than what is compiled", counter: compiledBytes,
		host:      "what the container takes, users of the host have not; root has",
		neighbour: "as users of the host, and no seccomp profile either", bounded: "the memory limit, if it is below net.core.bpf_jit_limit", hold: 500, charge: 20_000,
	},
	{
		name: "namespaces", limit: "user.max_*_namespaces", charged: "owner of the user namespace",
		host: unchanged, neighbour: unchanged, bounded: "the limit, and the memory limit", hold: 1 << 20, need: 10, root: true,
	},
	{
		name: "tracked connections", limit: "net.netfilter.nf_conntrack_max, for each network namespace", charged: "no memory cgroup", counter: trackedConnections,
		host:      "its own unchanged; 64 MB of memory for each network namespace of the container",
		neighbour: unchanged, bounded: "that limit, and user.max_net_namespaces", hold: 1 << 20, need: 10, root: true,
	},
	{
		name: "io_uring", limit: "RLIMIT_MEMLOCK", charged: "user of the container, on the host",
		host: unchanged, neighbour: unchanged, bounded: "the seccomp profile: io_uring_setup(2) is not allowed", hold: 10, need: 2, denied: true,
	},
	{
		name: "BPF programs and maps", limit: "none", charged: "memory cgroup",
		host: unchanged, neighbour: unchanged, bounded: "the seccomp profile: bpf(2) is not allowed (`TestEscape`)",
	},
	{
		name: "mounts", limit: "fs.mount-max for each mount namespace; 1,048,576 device numbers", charged: "memory cgroup",
		host: unchanged, neighbour: unchanged, bounded: "the memory limit: below 1 GB for all device numbers", hold: 4000, charge: 1000,
	},
	{
		name: "epoll watches", limit: "fs.epoll.max_user_watches", charged: "user of the container, on the host; memory cgroup",
		host: unchanged, neighbour: unchanged, bounded: memoryLimit, hold: 50_000, charge: 100,
	},
	{
		name: "open files", limit: "fs.file-max", charged: "memory cgroup",
		host: unchanged, neighbour: unchanged, bounded: memoryLimit, hold: 15_000, charge: 300,
	},
	{
		name: "files in memory (tmpfs, /dev/shm)", limit: "none", charged: "memory cgroup",
		host: unchanged, neighbour: unchanged, bounded: memoryLimit, hold: 20_000, charge: 500,
	},
	{
		name: "netlink sockets", limit: "none", charged: "memory cgroup",
		host: unchanged, neighbour: unchanged, bounded: memoryLimit, hold: 15_000, charge: 600,
	},
	{
		name: "network devices", limit: "none", charged: "memory cgroup",
		host: unchanged, neighbour: unchanged, bounded: memoryLimit, hold: 100, charge: 20_000,
	},
	{
		name: "System V semaphores", limit: "kernel.sem, for each ipc namespace", charged: "memory cgroup",
		host: unchanged, neighbour: unchanged, bounded: memoryLimit, hold: 1000, charge: 8000,
	},
}

// capacity is one resource. Words in it are those of docs/security.md.
type capacity struct {
	name, limit, charged, host, neighbour, bounded string
	// hold is how many a container tries to take; 0 for no attempt.
	hold int
	// need is how many everybody else must get meanwhile.
	need int
	// root tells that users of the host get none anyhow.
	root bool
	// denied tells that containers get none at all.
	denied bool
	// counter reads what the kernel counts for the machine, in pieces that are not
	// larger than one of the resource. It proves that what the container has is missing
	// elsewhere.
	counter func(*testing.T) int
	// charge is how many bytes the container's memory cgroup is charged for one, at
	// least.
	charge int
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
		if measured := !strings.Contains(c.name, "(not measured)"); measured != (c.hold > 0) || measured && (c.host == unchanged) != (c.counter == nil) || measured && c.need == 0 && c.counter == nil && c.charge == 0 {
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
	rig.Require(t, rig.Root)
	program := build(t, attacker.Capacity)
	for _, runtime := range runtimes {
		t.Run(string(runtime), func(t *testing.T) {
			n := startSmall(t, runtime)
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
		limitPIDs(t, greedy, "200")
	}
	var before int
	if c.counter != nil {
		before = c.counter(t)
	}
	got, charged, why := c.take(t, n, greedy)
	t.Logf("the container has %d (%s), and is charged %d bytes", got, why, charged)
	if c.charge > 0 && charged < got*c.charge { // others in the group may free some
		t.Errorf("for one, its memory cgroup is not charged %d bytes", c.charge)
	}
	if c.need == 0 && got != c.hold {
		t.Errorf("the container has %d of %d (%s)", got, c.hold, why)
	}
	if c.counter != nil {
		if counted := c.counter(t) - before; counted < got {
			t.Errorf("the container has %d, and the kernel counts %d for the machine", got, counted)
		}
	}
	if c.need == 0 {
		return
	}
	if got == c.hold || c.denied && got > 0 {
		t.Errorf("nothing has stopped the container at %d", got)
	}
	need := strconv.Itoa(c.need)
	for who, uid := range map[string]uint32{"root of the host": 0, "a user of the host": 12345} {
		if c.root && uid != 0 {
			continue
		}
		out, err := onHost(t, program, uid, "take", c.name, need)
		if err != nil || strings.Fields(out)[0] != need {
			t.Errorf("%s gets %s of %s, %v", who, out, need, err)
		}
	}
	if c.denied {
		return
	}
	out := n.Container(other).Exec(t, nil, "/capacity", "take", c.name, need).Must(t)
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

// holder starts a container that waits.
func holder(t *testing.T, n node, program string) string {
	t.Helper()
	made++
	c := &container{node: n, id: fmt.Sprintf("h%d", made)}
	n.StartContainer(t, []string{"--null-io", "--rlimit-nofile", "16384:16384", "--mount", "type=bind,src=" + program + ",dst=/capacity,options=rbind:ro"}, n.image, c.id, "sleep", "1000")
	return c.id
}

// take has a container take what it gets, and keep it. charged are the bytes that its
// memory cgroup is charged for that.
func (c capacity) take(t *testing.T, n node, id string) (got, charged int, why string) {
	t.Helper()
	output := filepath.Join(t.TempDir(), "output")
	if err := os.WriteFile(output, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	n.Ctr(t.Context(), slices.Concat([]string{"tasks", "exec", "--detach", "--log-uri", "file://" + output}, rig.ExecID(), []string{
		id,
		"/capacity", "hold", c.name, strconv.Itoa(c.hold),
	})...).Must(t)
	line := ""
	if !rig.Within(5*time.Minute, func() bool { line = read(t, output); return strings.HasSuffix(line, "\n") }) {
		t.Fatalf("container %s has not said what it got", id)
	}
	fields := strings.SplitN(strings.TrimSpace(line), " ", 3)
	return atoi(t, fields[0]), atoi(t, fields[1]), fields[2]
}
