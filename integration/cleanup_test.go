// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
)

// oneRange is a configuration with ids for one container at a time: a container
// runs only if the one before it has given its range back.
const oneRange = "[ids]\npool = [\"1879048192-1879113727\"]\n"

// host is a containerd that starts the shim under test, and an image. Tests share
// one of each version, and leave nothing on it.
type host struct {
	*rig.Machine
	ref string
}

// hostOf returns the containerd of a version. A first container has run when it
// returns, so that what is made once is there before anybody counts.
func hostOf(t testing.TB, containerd peer.Name) host {
	t.Helper()
	node := nodeOf(t, containerd, "overlayfs")
	h := host{Machine: node, ref: node.Image(t, demo())}
	mark := h.Mark(t)
	t.Cleanup(func() {
		h.clear(t)
		if t.Failed() {
			t.Logf("end of %s:\n%s", h.Log, h.Since(t, max(mark, h.Mark(t)-logEnd)))
		}
	})
	h.run(t, "first", nil, "true").Must(t)
	return h
}

// logEnd is how much of a log a failed test shows, in bytes.
const logEnd = 10_000

// clear removes what a test that failed has left, so that it stays the only one.
func (h host) clear(t testing.TB) {
	ctx := context.WithoutCancel(t.Context())
	for id := range strings.FieldsSeq(h.Ctr(ctx, "containers", "ls", "-q").Stdout) {
		if !t.Failed() {
			t.Errorf("container %q is left", id)
		}
		h.Ctr(ctx, "tasks", "rm", "--force", id)
		h.Ctr(ctx, "containers", "rm", id)
	}
}

// run runs a container to its end.
func (h host) run(t testing.TB, id string, flags []string, argv ...string) rig.Result {
	t.Helper()
	return h.Output(t, "run", slices.Concat([]string{"--rm", "--runtime", shimName}, flags, []string{h.ref, id}, argv)...)
}

// start starts a container that stays.
func (h host) start(t testing.TB, id string, flags ...string) {
	t.Helper()
	h.Ctr(t.Context(), slices.Concat([]string{"run", "-d", "--null-io", "--runtime", shimName}, flags, []string{h.ref, id, "sleep", "86400"})...).Must(t)
	// Until it is executed, the command line is the runtime's.
	rig.Eventually(t, "program of the container", func() bool {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", h.init(t, id)))
		return err == nil && string(line) == "sleep\x0086400\x00"
	})
}

// init is the first process of a container.
func (h host) init(t testing.TB, id string) int { t.Helper(); return h.Container(id).Pid(t) }

// exec runs a command in a container.
func (h host) exec(t testing.TB, id string, argv ...string) rig.Result {
	t.Helper()
	return h.Container(id).Exec(t, nil, argv...)
}

// shimOf finds the process that serves a container.
func shimOf(t testing.TB, id string) int { t.Helper(); return shimProcess(t, id, "") }

// shimProcess finds the process of a container's shim that has an action, "" for the one
// that serves the container.
func shimProcess(t testing.TB, id, action string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(line), "\x00")
		at := slices.Index(args, "-id")
		if filepath.Base(args[0]) != "containerd-shim-isolate-v1" || at < 0 || args[at+1] != id {
			continue
		}
		found := ""
		for _, known := range []string{"start", "delete"} {
			if slices.Contains(args, known) {
				found = known
			}
		}
		if found == action {
			return pid
		}
	}
	return 0
}

// killShim ends a container's shim without warning.
func killShim(t testing.TB, id string) {
	t.Helper()
	pid := shimOf(t, id)
	if pid == 0 {
		t.Fatalf("container %q has no shim", id)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestCleanup ends a container in every way there is. Nothing of it may be left,
// and its ids, the only ones, must do for the next.
func TestCleanup(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	settings := oneRange
	if rig.Slow() {
		settings += "[lxcfs]\ntimeout_ms = 10000\n"
	}
	rig.Configure(t, settings)
	rig.LxcfsFor(t, peer.Lxcfs6, "")
	h := hostOf(t, peer.Containerd24)
	volume := t.TempDir()
	flags := []string{
		"--memory-limit", "268435456", "--mount", "type=bind,src=" + volume + ",dst=/volume,options=rbind:ro",
		"--mount", "type=tmpfs,src=tmpfs,dst=/scratch",
	}
	down := func(t *testing.T) {
		if err := h.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	up := func(t *testing.T) {
		if err := h.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	alive := func(t *testing.T) {
		if got := h.exec(t, "a", "echo", "here").Must(t); got != "here" {
			t.Errorf("exec printed %q", got)
		}
	}
	for _, c := range []struct {
		name string
		end  func(t *testing.T)
	}{
		{"delete", func(*testing.T) {}},
		{"init killed", func(t *testing.T) {
			if err := unix.Kill(h.init(t, "a"), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}},
		{"shim killed", func(t *testing.T) { killShim(t, "a") }},
		{"shim killed during exec", func(t *testing.T) {
			go h.exec(t, "a", "sleep", "43200")
			rig.Eventually(t, "exec", func() bool { return strings.Contains(h.Ctr(t.Context(), "tasks", "ps", "a").Stdout, "exec_id") })
			killShim(t, "a")
		}},
		{"shim and init killed", func(t *testing.T) {
			pid := h.init(t, "a")
			killShim(t, "a")
			_ = unix.Kill(pid, unix.SIGKILL) // it may have died with the shim
		}},
		{"containerd stopped and started", func(t *testing.T) {
			if err := h.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			alive(t)
		}},
		{"containerd killed and started", func(t *testing.T) { down(t); up(t); alive(t) }},
		{"containerd started, then shim killed", func(t *testing.T) { down(t); up(t); killShim(t, "a") }},
		{"shim killed while containerd was down", func(t *testing.T) { down(t); killShim(t, "a"); up(t) }},
		{"all killed while containerd was down", func(t *testing.T) {
			pid := h.init(t, "a")
			down(t)
			killShim(t, "a")
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			up(t)
		}},
		{"init ended while containerd was down", func(t *testing.T) {
			pid := h.init(t, "a")
			down(t)
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			up(t)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := rig.MustSnapshot(t)
			h.start(t, "a", flags...)
			if len(before.Diff(rig.MustSnapshot(t))) == 0 {
				t.Error("a running container is not seen")
			}
			c.end(t)
			h.Container("a").Remove(t)
			rig.MustMatch(t, before)
			h.run(t, "next", nil, "true").Must(t)
			rig.MustMatch(t, before)
		})
	}
}

// TestCleanupOfShimKilledAnyTime kills the shim at moments spread over the life
// of a container.
func TestCleanupOfShimKilledAnyTime(t *testing.T) {
	rig.Require(t, rig.Root, rig.FUSE)
	rig.Configure(t, oneRange)
	rig.LxcfsFor(t, peer.Lxcfs6, "")
	h := hostOf(t, peer.Containerd24)
	volume := t.TempDir()
	before := rig.MustSnapshot(t)
	killed, failed := 0, 0
	for delay := range 20 {
		mark := h.Mark(t)
		done := make(chan rig.Result, 1)
		go func() {
			done <- h.run(t, "a", []string{"--null-io", "--mount", "type=bind,src=" + volume + ",dst=/volume,options=rbind:ro"}, "true")
		}()
		// Of a shim that dies before containerd has reached it, containerd does
		// not call delete, and the shim's sockets stay, as with any shim.
		rig.Eventually(t, "connection", func() bool { return strings.Contains(h.Since(t, mark), "activating mount") || len(done) > 0 })
		pid := shimOf(t, "a")
		time.Sleep(time.Duration(delay) * 8 * time.Millisecond)
		if pid != 0 && unix.Kill(pid, unix.SIGKILL) == nil {
			killed++
		}
		if (<-done).Err() != nil {
			failed++
			// What became of the container is containerd's to know.
			h.Ctr(t.Context(), "tasks", "rm", "--force", "a")
			h.Ctr(t.Context(), "containers", "rm", "a")
			h.Ctr(t.Context(), "snapshots", "rm", "a")
		}
		rig.MustMatch(t, before)
		if t.Failed() {
			t.Fatalf("after %d ms", delay*8)
		}
	}
	t.Logf("killed %d shims, %d of them before their container had ended", killed, failed)
	if failed == 0 {
		t.Error("no kill had an effect")
	}
	h.run(t, "next", nil, "true").Must(t)
	rig.MustMatch(t, before)
}

// TestClientLeavesDuringDelete: the shim deletes a container for a client that does not
// wait for it. containerd then has a task that no client can delete; the id is free
// all the same when the shim, which has no container, has ended.
func TestClientLeavesDuringDelete(t *testing.T) {
	rig.Require(t, rig.Root)
	f := faultyRuntime(t, peer.Runc15)
	rig.Configure(t, f.config())
	h := hostOf(t, peer.Containerd24)
	api, call := taskAPI(t, machine{Machine: h.Machine})
	before := rig.MustSnapshot(t)
	h.start(t, "a")
	if _, err := api.Kill(call, &tasks.KillRequest{ContainerID: "a", Signal: uint32(unix.SIGKILL)}); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "end of the container", func() bool { _, state := h.Container("a").State(t); return state == "STOPPED" })
	f.inject(t, "delete", waits)
	leaving, leave := context.WithCancel(call)
	left := make(chan error)
	go func() {
		_, err := api.Delete(leaving, &tasks.DeleteTaskRequest{ContainerID: "a"})
		left <- err
	}()
	rig.Eventually(t, "runtime that waits", func() bool { _, err := os.Lstat(filepath.Join(f.dir, "waiting")); return err == nil })
	leave()
	if err := <-left; err == nil {
		t.Error("a runtime that waits has deleted the container")
	}
	f.heal(t, "delete")
	rig.Eventually(t, "end of the shim", func() bool { return shimOf(t, "a") == 0 })
	h.Container("a").Remove(t)
	rig.MustMatch(t, before)
	h.run(t, "a", nil, "true").Must(t)
	rig.MustMatch(t, before)
}

// TestTemporaryFilesOfAKilledShim: what an exec is to do, and the socket for a terminal,
// stayed in the host's directory of temporary files if the shim was killed meanwhile.
func TestTemporaryFilesOfAKilledShim(t *testing.T) {
	rig.Require(t, rig.Root, rig.Command("script"))
	f := faultyRuntime(t, peer.Runc15)
	rig.Configure(t, f.config()+oneRange)
	h := hostOf(t, peer.Containerd24)
	pipes := t.TempDir()
	for _, c := range []struct{ name, verb, client string }{
		{"exec", "exec", "tasks exec --exec-id e --fifo-dir " + pipes + " a true"},
		{"terminal of an exec", "exec", "tasks exec --tty --exec-id e --fifo-dir " + pipes + " a true"},
		{"terminal", "create", "run --tty --fifo-dir " + pipes + " --runtime " + shimName + " " + h.ref + " a true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := rig.MustSnapshot(t)
			if c.verb == "exec" {
				h.start(t, "a")
			}
			f.inject(t, c.verb, hangs)
			done := make(chan rig.Result, 1)
			line := strings.Join(h.Ctr(t.Context(), "version").Argv[:3], " ") + " " + c.client
			go func() {
				done <- rig.Exec(t.Context(), "script", "--quiet", "--return", "--command", line, "/dev/null")
			}()
			rig.Eventually(t, "hanging runtime", func() bool { return hungPid(t) > 0 })
			f.heal(t, c.verb)
			env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", hungPid(t)))
			if err != nil || strings.Contains(string(env), "/run/isolate") {
				t.Errorf("the runtime's environment: %q, %v", env, err)
			}
			killShim(t, "a")
			refused(t, <-done)
			h.Ctr(t.Context(), "tasks", "rm", "--force", "a")
			h.Ctr(t.Context(), "containers", "rm", "a")
			h.Ctr(t.Context(), "snapshots", "rm", "a")
			rig.MustMatch(t, before)
		})
	}
}
