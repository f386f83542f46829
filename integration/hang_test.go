// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/integration/peer"
	"github.com/isolate-shim/isolate/integration/rig"
	"github.com/isolate-shim/isolate/shim/record"
)

// TestKillWhileTheRuntimeHangs has a client leave, or ask for the end of a container,
// while the runtime hangs, lies or dies: nothing may be left, the only range is free,
// and the same id starts again while the fault is over.
func TestKillWhileTheRuntimeHangs(t *testing.T) {
	rig.Require(t, rig.Root)
	f := faultyRuntime(t, peer.Runc15)
	rig.Configure(t, oneRange+f.config())
	h := hostOf(t, peer.Containerd24)
	api, call := taskAPI(t, machine{Machine: h.Machine})
	// What the client does with the container "a"; it leaves when the runtime hangs.
	create := []string{"run", "-d", "--null-io", "--runtime", shimName, h.ref, "a", "sleep", "86400"}
	execute := []string{"tasks", "exec", "--fifo-dir", t.TempDir(), "--exec-id", "e", "a", "true"}
	for _, c := range []struct {
		verb, fault string
		client      []string
		runs        bool // before
		stays       bool // the client does not leave
	}{
		{verb: "create", fault: hangs, client: create},
		{verb: "create", fault: hangs, client: create, stays: true},
		{verb: "create", fault: hangsLate, client: create},
		{verb: "create", fault: hangsLate, client: create, stays: true},
		{verb: "create", fault: garbles, client: create},
		{verb: "create", fault: forks, client: create},
		{verb: "start", fault: hangs, client: create},
		{verb: "start", fault: hangs, client: create, stays: true},
		{verb: "start", fault: hangsLate, client: create},
		{verb: "start", fault: garbles, client: create},
		{verb: "exec", fault: hangs, client: execute, runs: true},
		{verb: "exec", fault: hangs, client: execute, runs: true, stays: true},
		{verb: "exec", fault: garbles, client: execute, runs: true},
		{verb: "exec", fault: failsLate, client: execute, runs: true},
		{verb: "state", fault: hangs, client: execute, runs: true},
		{verb: "state", fault: garbles, client: execute, runs: true},
		{verb: "kill", fault: hangs, client: []string{"tasks", "kill", "-s", "15", "a"}, runs: true},
		{verb: "kill", fault: garbles, client: []string{"tasks", "kill", "-s", "15", "a"}, runs: true},
		{verb: "delete", fault: hangs, client: []string{"tasks", "rm", "--force", "a"}, runs: true},
		{verb: "delete", fault: garbles, client: []string{"tasks", "rm", "--force", "a"}, runs: true},
	} {
		name := c.verb + "/" + c.fault
		if c.stays {
			name += "/client stays"
		}
		t.Run(name, func(t *testing.T) {
			before := rig.MustSnapshot(t)
			if c.runs {
				h.start(t, "a")
			}
			f.inject(t, c.verb, c.fault)
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			done := make(chan rig.Result, 1)
			go func() { done <- h.Ctr(ctx, c.client...) }()
			// The runtime hangs, or it is done.
			var r rig.Result
			over := false
			rig.Eventually(t, "fault", func() bool {
				select {
				case r = <-done:
					over = true
				default:
				}
				return over || hungPid(t) > 0
			})
			if over != (c.fault != hangs && c.fault != hangsLate || c.verb == "state") {
				t.Errorf("the client has ended: %v, %+v", over, r)
			}
			if !c.stays {
				leave()
			}
			started := time.Now()
			bounded, cancel := context.WithTimeout(t.Context(), rig.Patiently(30*time.Second))
			defer cancel()
			if c.verb == "delete" {
				f.heal(t, c.verb) // nothing can be removed before
			}
			// ctr asks for the state first, which there is none of before it is created.
			_, killed := api.Kill(call, &tasks.KillRequest{ContainerID: "a", Signal: uint32(unix.SIGKILL)})
			if !over {
				select {
				case r = <-done:
				case <-bounded.Done():
					t.Fatal("the client is not answered", killed)
				}
			}
			h.Ctr(bounded, "tasks", "rm", "--force", "a")
			removed := h.Ctr(bounded, "containers", "rm", "a")
			if err := removed.Err(); err != nil && !strings.Contains(err.Error(), "not found") {
				t.Error(err)
			}
			h.Ctr(bounded, "snapshots", "rm", "a")
			if err := bounded.Err(); err != nil {
				t.Error(err)
			}
			t.Logf("removed after %v; the client: %d %s", time.Since(started).Round(time.Millisecond), r.Code, r.Stderr)
			f.heal(t, c.verb)
			rig.MustMatch(t, before)
			h.run(t, "a", nil, "true").Must(t)
			rig.MustMatch(t, before)
		})
	}
}

// TestIDAfterAnUnfinishedCleanUp uses the id of a container that the clean-up after
// its shim could not end in the time that containerd gives it.
func TestIDAfterAnUnfinishedCleanUp(t *testing.T) {
	rig.Require(t, rig.Root)
	rig.Configure(t, oneRange)
	h := hostOf(t, peer.Containerd24)
	before := rig.MustSnapshot(t)
	ended := leaveBehind(t, h, before)
	// It holds the only range until it has ended.
	h.run(t, "a", nil, "true").Must(t)
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it has ended by itself")
		}
	default:
		t.Error("a process of the earlier container lives")
	}
	rig.MustMatch(t, before)
}

// TestUnfinishedCleanUpIsFinished when any container starts.
func TestUnfinishedCleanUpIsFinished(t *testing.T) {
	rig.Require(t, rig.Root)
	h := hostOf(t, peer.Containerd24)
	before := rig.MustSnapshot(t)
	ended := leaveBehind(t, h, before)
	h.start(t, "b")
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it has ended by itself")
		}
	case <-time.After(rig.Patiently(time.Minute)):
		t.Error("a process of the earlier container lives")
	}
	rig.Eventually(t, "end of the clean-up", func() bool {
		_, err := os.Lstat("/run/isolate/default/a")
		return errors.Is(err, os.ErrNotExist)
	})
	h.Container("b").Remove(t)
	rig.MustMatch(t, before)
}

// leaveBehind leaves a process of the container "a", which the clean-up after its shim
// could not end, and returns how it ends.
func leaveBehind(t *testing.T, h host, before rig.Leftovers) <-chan error {
	t.Helper()
	h.start(t, "a")
	const dir = "/run/isolate/default/a"
	text, err := os.ReadFile(dir + "/record.json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := record.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	h.Container("a").Remove(t)
	rig.MustMatch(t, before)

	// The shim was killed before it knew the first process.
	r.Init, r.Userns, r.PIDs = nil, nil, nil
	left := exec.CommandContext(t.Context(), "sleep", "86399")
	ids := []syscall.SysProcIDMap{{HostID: int(r.Mapping.UIDs[0].Host), Size: int(r.Mapping.UIDs[0].Size)}}
	left.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID, UidMappings: ids, GidMappings: ids, Credential: &syscall.Credential{},
	}
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- left.Wait() }()
	for _, group := range r.Cgroups {
		if err := errors.Join(os.MkdirAll(group, 0o755), os.WriteFile(group+"/cgroup.procs", fmt.Append(nil, left.Process.Pid), 0)); err != nil && filepath.Base(filepath.Dir(filepath.Dir(group))) != "cpuset" {
			t.Fatal(err)
		}
	}
	if err := errors.Join(r.Save(), r.Unfinished()); err != nil {
		t.Fatal(err)
	}
	return ended
}
