// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// TestLifecycle leads one container of each OCI runtime through the calls of the
// task API, and counts what is left.
func TestLifecycle(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime, "[ids]\npool = [\"1900019712-1900085247\"]")
			// The first container leaves what is known of the runtime, and a slot.
			m.run(t, nil, "true").Must(t)
			before := rig.MustSnapshot(t)

			count := filepath.Join(t.TempDir(), "count")
			if err := os.Mkdir(count, 0o755); err != nil {
				t.Fatal(err)
			}
			const counter = "trap 'exit 9' TERM; i=0; while :; do i=$((i+1)); echo $i > /count/n; sleep 0.02; done"
			m.start(t, "a", volume(count, "/count", "rbind:rw"), "sh", "-c", counter)
			api, ctx := taskAPI(t, m)

			t.Run("exec", func(t *testing.T) {
				// It ends after ctr has opened its pipes, see rig.Node.Output.
				r := m.Ctr(t.Context(), "tasks", "exec", "--exec-id", "x", "a", "sh", "-c", "echo out; echo err >&2; sleep 0.5; exit 5")
				if r.Code != 5 || r.Stdout != "out\n" || !strings.Contains(r.Stderr, "err\n") {
					t.Errorf("exit status %d, stdout %q, stderr %q", r.Code, r.Stdout, r.Stderr)
				}
			})
			t.Run("pause", func(t *testing.T) {
				path := filepath.Join(count, "n")
				rig.Eventually(t, "the counter to run", func() bool { return text(path) != "" })
				m.Ctr(t.Context(), "tasks", "pause", "a").Must(t)
				still := text(path)
				if state := m.state(t, "a"); state != "PAUSED" {
					t.Errorf("state %q", state)
				}
				time.Sleep(200 * time.Millisecond) // time to count, which it must not
				if now := text(path); now != still {
					t.Errorf("counted from %s to %s while paused", still, now)
				}
				m.Ctr(t.Context(), "tasks", "resume", "a").Must(t)
				rig.Eventually(t, "the counter to go on", func() bool { return text(path) != still })
			})
			t.Run("metrics", func(t *testing.T) { checkMetrics(t, m) })
			t.Run("pids", func(t *testing.T) {
				log := "file://" + filepath.Join(t.TempDir(), "output")
				m.Ctr(t.Context(), "tasks", "exec", "--detach", "--log-uri", log, "--exec-id", "sleeper", "a", "sleep", "1000").Must(t)
				// crun's ps finds none of them on cgroup v2.
				out := m.Ctr(t.Context(), "tasks", "ps", "a").Must(t)
				for _, part := range []string{m.pid(t, "a"), "sleeper"} {
					if !strings.Contains(out, part) {
						t.Errorf("%s is not in %q", part, out)
					}
				}
				m.Ctr(t.Context(), "tasks", "kill", "--signal", "SIGKILL", "--exec-id", "sleeper", "a").Must(t)
			})
			t.Run("update", func(t *testing.T) {
				const want = int64(96 << 20)
				if _, err := api.Update(ctx, &tasks.UpdateTaskRequest{ContainerID: "a", Resources: memoryLimit(t, want)}); err != nil {
					t.Fatal(err)
				}
				const files = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
				if got := m.exec(t, "a", nil, "sh", "-c", files).Stdout; got != fmt.Sprintln(want) {
					t.Errorf("limit in the container is %q, want %d", got, want)
				}
			})
			t.Run("kill and wait", func(t *testing.T) {
				waited := make(chan string, 1)
				go func() {
					r, err := api.Wait(ctx, &tasks.WaitRequest{ContainerID: "a"})
					waited <- fmt.Sprint(r.GetExitStatus(), err)
				}()
				m.Ctr(t.Context(), "tasks", "kill", "--signal", "SIGTERM", "a").Must(t)
				if got := <-waited; got != "9 <nil>" {
					t.Errorf("waited for %s, want exit status 9", got)
				}
			})
			m.Container("a").Remove(t)
			rig.MustMatch(t, before)
		})
	}
}

// TestTerminal attaches terminals and pipes.
func TestTerminal(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root, rig.Command("script"))
			m := demoMachine(t, runtime)
			// Only root of the container may own the terminal, or it cannot open it.
			const look = "stat -c %u:%a $(tty); tty < /dev/tty; read x; echo got-$x;" +
				"for i in $(seq 200); do [ \"$(stty size)\" = \"33 77\" ] && echo resized && break; sleep 0.05; done; read y"
			for name, argv := range map[string][]string{
				"run":  {"run", "--rm", "--tty", "--runtime", shimName, m.reference, "b", "sh", "-c", look},
				"exec": {"tasks", "exec", "--tty", "--exec-id", "t", "a", "sh", "-c", look},
			} {
				if name == "exec" {
					m.start(t, "a", nil, "sleep", "1000")
				}
				out := m.onTerminal(t, "hello\n", "resized", "bye\n", argv...)
				for _, want := range []string{"0:620", "/dev/", "resized", "got-hello"} {
					if !strings.Contains(out, want) {
						t.Errorf("%s printed %q, want %q in it", name, out, want)
					}
				}
			}
			m.Container("a").Remove(t)

			argv := []string{"run", "--detach", "--runtime", shimName, m.reference, "a", "cat"}
			t.Cleanup(func() { m.Container("a").Remove(t) })
			m.Ctr(t.Context(), argv...).Must(t)
			out := m.background(t, "through a pipe\n", "tasks", "attach", "a")
			rig.Eventually(t, "the attached client's output", func() bool { return out() == "through a pipe\n" })
		})
	}
}

// TestOOM proves that a container beyond its memory limit ends with 137, and
// that containerd hears why.
func TestOOM(t *testing.T) {
	for _, runtime := range ociRuntimes {
		t.Run(string(runtime), func(t *testing.T) {
			rig.Require(t, rig.Root)
			m := demoMachine(t, runtime)
			events := m.events(t)
			// Not the init process alone is killed, so the exit status is the child's.
			r := m.run(t, []string{"--memory-limit", "33554432"}, "sh", "-c", "tail /dev/zero; echo $?; exit 42")
			// The shell says "Killed" on another stream, before or after.
			if !slices.Contains(strings.Fields(r.Stdout), "137") && r.Code != 137 {
				t.Errorf("exit status %d, stdout %q, want 137", r.Code, r.Stdout)
			}
			for _, topic := range []string{"/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit", "/tasks/delete"} {
				rig.Eventually(t, "event "+topic, func() bool { return strings.Contains(events(), topic) })
			}
			r = m.run(t, []string{"--memory-limit", "33554432"}, "tail", "/dev/zero")
			if r.Code != 137 {
				t.Errorf("exit status %d of an init process that was killed, want 137: %s", r.Code, r.Stderr)
			}
		})
	}
}

// TestCheckpoint proves that a checkpoint request reaches the runtime: with a
// CRIU it is made, without one the error says so.
func TestCheckpoint(t *testing.T) {
	rig.Require(t, rig.Root)
	// CRIU cannot describe the stand-ins for sysctls.
	m := demoMachine(t, peer.Runc15, `nesting = "off"`)
	m.start(t, "a", nil, "sleep", "1000")
	if r := m.Ctr(t.Context(), "tasks", "checkpoint", "a"); !strings.Contains(r.Stderr, `exec: "criu": executable file not found`) {
		t.Errorf("without a CRIU: %v", r.Err())
	}

	criu, err := peer.Get(t.Context(), peer.Criu)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/etc/criu", 0o755); err != nil {
		t.Fatal(err)
	}
	// CRIU would call iptables, which it only needs for open connections.
	if err := os.WriteFile("/etc/criu/default.conf", []byte("network-lock skip\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(m.Bin, "criu")
	if err := os.Symlink(criu.Program("criu"), link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, path := range []string{link, "/etc/criu"} {
			if err := os.RemoveAll(path); err != nil {
				t.Error(err)
			}
		}
	})
	images := filepath.Join(t.TempDir(), "images")
	if may, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0); err != nil || may == 0 {
		if r := m.Ctr(t.Context(), "tasks", "checkpoint", "--exit", "--image-path", images, "a"); err != nil || !strings.Contains(r.Stderr, "criu failed") {
			t.Errorf("CRIU has read limits without CAP_SYS_RESOURCE: %v, %v", r.Err(), err)
		}
		return
	}
	m.Ctr(t.Context(), "tasks", "checkpoint", "--exit", "--image-path", images, "a").Must(t)
	if _, err := os.Stat(filepath.Join(images, "pstree.img")); err != nil {
		t.Errorf("checkpoint: %v", err)
	}
	if got := m.state(t, "a"); got != "STOPPED" {
		t.Errorf("state %q after checkpoint --exit", got)
	}
}

// TestShimGroup proves that containers of one group share one shim, but neither
// ids nor namespaces.
func TestShimGroup(t *testing.T) {
	rig.Require(t, rig.Root)
	m := demoMachine(t, peer.Runc15, "[ids]\npool = [\"1900085248-1900281855\"]", "[annotations]\nallow = [\"io.containerd.runc.v2.group\"]")
	for range 3 {
		m.run(t, nil, "true").Must(t) // leaves a slot
	}
	before := rig.MustSnapshot(t)
	group := append(withInside(t), "--annotation", "io.containerd.runc.v2.group=g")
	m.start(t, "g1", group, "sleep", "1000")
	m.start(t, "g2", group, "sleep", "1000")
	m.start(t, "g3", withInside(t), "sleep", "1000")
	if n := shims(t); n != 2 {
		t.Errorf("%d shims for a group of two and another container, want 2", n)
	}
	seen := map[string]bool{}
	for _, id := range []string{"g1", "g2", "g3"} {
		r := answer[reported](t, m.exec(t, id, nil, "/inside", "report"))
		seen[r.UIDMap], seen[r.Namespaces["user"]] = true, true
	}
	if len(seen) != 6 {
		t.Errorf("id ranges and user namespaces %v, want three of each", seen)
	}
	m.Container("g1").Remove(t)
	if out := m.exec(t, "g2", nil, "echo", "here").Must(t); out != "here" {
		t.Errorf("the second one printed %q after the first was removed", out)
	}
	m.Container("g2").Remove(t)
	m.Container("g3").Remove(t)
	rig.MustMatch(t, before)
}

func checkMetrics(t *testing.T, m machine) {
	t.Helper()
	var metrics struct {
		Pids   struct{ Current int }
		Memory struct{ Usage json.RawMessage } // a number with cgroup v2, more with v1
	}
	out := m.Ctr(t.Context(), "tasks", "metrics", "--format", "json", "a").Must(t)
	if err := json.Unmarshal([]byte(out), &metrics); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	if metrics.Pids.Current == 0 || !strings.ContainsAny(string(metrics.Memory.Usage), "123456789") {
		t.Errorf("metrics are %s", out)
	}
}

// taskAPI calls what ctr has no command for.
func taskAPI(t *testing.T, m machine) (tasks.TasksClient, context.Context) {
	t.Helper()
	connection, err := grpc.NewClient("unix://"+m.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := connection.Close(); err != nil {
			t.Error(err)
		}
	})
	return tasks.NewTasksClient(connection), metadata.AppendToOutgoingContext(t.Context(), "containerd-namespace", "default")
}

func memoryLimit(t *testing.T, bytes int64) *anypb.Any {
	t.Helper()
	value, err := json.Marshal(specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &bytes}})
	if err != nil {
		t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", Value: value}
}

// state is a container's state as ctr prints it.
func (m machine) state(t *testing.T, id string) string {
	t.Helper()
	_, state := m.Container(id).State(t)
	return state
}

// ctr is the beginning of ctr's command line, for commands that need more than
// [rig.Node.Ctr] gives.
func (m machine) ctr(t *testing.T) []string {
	t.Helper()
	return m.Ctr(t.Context(), "version").Argv[:3]
}

// onTerminal runs ctr on a terminal of 33 lines with 77 characters, and returns what
// appeared there. The last line of the input comes when the output has a text: ctr loses
// what a process prints just before it ends, see rig.Node.Output.
func (m machine) onTerminal(t *testing.T, first, until, last string, args ...string) string {
	t.Helper()
	var line strings.Builder
	line.WriteString("stty rows 33 cols 77; exec")
	for _, arg := range slices.Concat(m.ctr(t), args) {
		fmt.Fprintf(&line, " '%s'", arg)
	}
	path := filepath.Join(t.TempDir(), "output")
	file, err := os.Create(path) //nolint:forbidigo // the test's own directory
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ctx, cancel := context.WithTimeout(t.Context(), rig.Patiently(time.Minute))
	defer cancel()
	command := exec.CommandContext(ctx, "script", "--quiet", "--return", "--command", line.String(), "/dev/null")
	command.Stdout = file
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = input.Write([]byte(first))
	for err == nil && ctx.Err() == nil && !strings.Contains(text(path), until) {
		time.Sleep(10 * time.Millisecond)
	}
	if err == nil {
		_, err = input.Write([]byte(last))
	}
	if err := errors.Join(err, input.Close(), command.Wait()); err != nil {
		t.Errorf("%q: %v", args, err)
	}
	return strings.ReplaceAll(text(path), "\r\n", "\n")
}

// events collects containerd's events from now on.
func (m machine) events(t *testing.T) func() string {
	t.Helper()
	events := m.background(t, "", "events")
	// It says nothing when it has subscribed, so events are made until one is seen.
	rig.Eventually(t, "ctr events to subscribe", func() bool {
		m.Ctr(t.Context(), "images", "label", m.reference, fmt.Sprintf("test=%d", time.Now().UnixNano())).Must(t)
		return events() != ""
	})
	return events
}

// background runs ctr until the test ends, and returns what reads its output.
func (m machine) background(t *testing.T, input string, args ...string) func() string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "output")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	argv := slices.Concat(m.ctr(t), args)
	command := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	command.Stdin, command.Stdout = strings.NewReader(input), file
	// Its input may be copied by something that is stuck.
	command.WaitDelay = time.Second
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait() // killed
	})
	return func() string { return text(path) }
}

// shims counts the shims under test.
func shims(t *testing.T) int {
	t.Helper()
	n := 0
	for line, count := range rig.MustSnapshot(t).Processes {
		if program, _, _ := strings.Cut(line, " "); filepath.Base(program) == "containerd-shim-isolate-v1" {
			n += count
		}
	}
	return n
}

// text is a file's content, "" if there is none.
func text(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(data)
}
