// SPDX-License-Identifier: Apache-2.0

package task

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
	linuxproc "github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/member"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/spec"
)

func marshal(t *testing.T, v any) *anypb.Any {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/x", Value: data}
}

// TestCallsReachUpstream, once each, whether or not the container is known.
func TestCallsReachUpstream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.made("a")
	for name, call := range map[string]func(id string) error{
		"start":  func(id string) error { _, err := w.Start(w.ctx(), &taskAPI.StartRequest{ID: id}); return err },
		"state":  func(id string) error { _, err := w.State(w.ctx(), &taskAPI.StateRequest{ID: id}); return err },
		"pids":   func(id string) error { _, err := w.Pids(w.ctx(), &taskAPI.PidsRequest{ID: id}); return err },
		"pause":  func(id string) error { _, err := w.Pause(w.ctx(), &taskAPI.PauseRequest{ID: id}); return err },
		"resume": func(id string) error { _, err := w.Resume(w.ctx(), &taskAPI.ResumeRequest{ID: id}); return err },
		"checkpoint": func(id string) error {
			_, err := w.Checkpoint(w.ctx(), &taskAPI.CheckpointTaskRequest{ID: id})
			return err
		},
		"resize": func(id string) error { _, err := w.ResizePty(w.ctx(), &taskAPI.ResizePtyRequest{ID: id}); return err },
		"kill":   func(id string) error { _, err := w.Kill(w.ctx(), &taskAPI.KillRequest{ID: id, Signal: 15}); return err },
		"update": func(id string) error { _, err := w.Update(w.ctx(), &taskAPI.UpdateTaskRequest{ID: id}); return err },
	} {
		for _, id := range []string{"a", "nobody"} {
			if err := call(id); err != nil {
				t.Errorf("%s %s: %v", name, id, err)
			}
			equal(t, "upstream was asked", w.up.called(), []string{name + " " + id})
		}
	}
	w.deleted("a")
}

// TestDeleteFails: all stays as it is, for the next one.
func TestDeleteFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.made("a")
	w.up.err = errgrpc.ToGRPC(errBroken)
	if _, err := w.Delete(w.ctx(), &taskAPI.DeleteRequest{ID: "a"}); !errdefs.IsUnavailable(errgrpc.ToNative(err)) {
		t.Errorf("got %v", err)
	}
	if w.container("a") == nil || len(w.kernel.Mounted()) != 1 || len(w.leases()) != 1 {
		t.Errorf("known: %v, mounted: %q, leases: %q", w.container("a"), w.kernel.Mounted(), w.leases())
	}
	w.up.err = nil
	w.deleted("a")
}

// TestRecordStaysAfterAnUnfinishedDelete, for `delete`, which containerd runs next.
func TestRecordStaysAfterAnUnfinishedDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.made("a")
	w.kernel.Fail = "unmount"
	w.deleted("a") // upstream has
	r, err := record.Load(w.ns, "a")
	if err != nil || w.container("a") != nil {
		t.Fatalf("known: %v, %v", w.container("a"), err)
	}
	w.kernel.Fail = ""
	unlock, err := lockID(w.ctx(), w.ns, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := r.Cleanup(nil); err != nil {
		t.Error(err)
	}
}

// TestUpdateIsEdited: devices leave it.
func TestUpdateIsEdited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.made("a")
	limit := int64(1 << 20)
	in := marshal(t, &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, Memory: &specs.LinuxMemory{Limit: &limit},
	})
	before := string(in.Value)
	if _, err := w.Update(w.ctx(), &taskAPI.UpdateTaskRequest{ID: "a", Resources: in}); err != nil {
		t.Fatal(err)
	}
	sent, _ := w.up.last.(*taskAPI.UpdateTaskRequest)
	var got specs.LinuxResources
	if err := json.Unmarshal(sent.GetResources().GetValue(), &got); err != nil || len(got.Devices) > 0 || got.Memory == nil || *got.Memory.Limit != limit {
		t.Errorf("upstream got %s, %v", sent.GetResources().GetValue(), err)
	}
	if string(in.Value) != before {
		t.Error("the caller's request changed")
	}
	w.up.called()
	if _, err := w.Update(w.ctx(), &taskAPI.UpdateTaskRequest{ID: "a", Resources: &anypb.Any{Value: []byte("{")}}); err == nil || !strings.Contains(err.Error(), `update container "a"`) {
		t.Errorf("what cannot be read: %v", err)
	}
	equal(t, "upstream was asked", w.up.called(), nil)
	w.deleted("a")
}

// execRequest asks for a process.
func (w *world) execRequest(id, exec string) *taskAPI.ExecProcessRequest {
	w.t.Helper()
	return &taskAPI.ExecProcessRequest{ID: id, ExecID: exec, Spec: marshal(w.t, &specs.Process{Cwd: "/", Args: []string{"true"}})}
}

// TestExec adds a process, whose spec is edited, starts it once, and forgets it.
func TestExec(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.made("a")
	if _, err := w.Exec(w.ctx(), w.execRequest("nobody", "x")); err != nil {
		t.Error(err) // upstream's to refuse
	}
	c.plan.Nesting = &spec.Nesting{}
	asked := w.execRequest("a", "x")
	if _, err := w.Exec(w.ctx(), asked); err != nil {
		t.Fatal(err)
	}
	edited, _, err := spec.ExecProcess(asked.Spec.Value, &c.plan)
	passed, ok := w.up.last.(*taskAPI.ExecProcessRequest)
	if got := passed.GetSpec().GetValue(); err != nil || !ok || !bytes.Equal(got, edited) || bytes.Equal(got, asked.Spec.Value) {
		t.Errorf("upstream got %s, want %s (%v)", got, edited, err)
	}
	if _, err := w.Start(w.ctx(), &taskAPI.StartRequest{ID: "a", ExecID: "x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Delete(w.ctx(), &taskAPI.DeleteRequest{ID: "a", ExecID: "x"}); err != nil {
		t.Fatal(err)
	}
	equal(t, "upstream was asked", w.up.called(), []string{"exec nobody x", "exec a x", "start a x", "delete a x"})
	if len(c.execs) > 0 || w.container("a") == nil {
		t.Errorf("known are %v", c.execs)
	}
	bad := w.execRequest("a", "y")
	bad.Spec.Value = []byte("{")
	if _, err := w.Exec(w.ctx(), bad); err == nil || !strings.Contains(err.Error(), `exec "y" in container "a"`) {
		t.Errorf("what cannot be read: %v", err)
	}
	w.up.err = errBroken
	if _, err := w.Exec(w.ctx(), w.execRequest("a", "z")); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
	if len(c.execs) > 0 {
		t.Errorf("known are %v", c.execs)
	}
	w.up.err = nil
	w.deleted("a")
}

// TestExecReportsAForeignProcess: it is not believed, and nothing is done to it.
func TestExecReportsAForeignProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.made("a")
	p := sleeper(t)
	told := func(exec string) report {
		path := w.path(exec + ".pid")
		if err := os.WriteFile(path, []byte(p.text()), 0o600); err != nil {
			t.Fatal(err)
		}
		return report{Runtime: "runc", Command: "exec", ID: "a", PIDFile: path}
	}
	if err := w.reported(told("x")); err == nil || !strings.Contains(err.Error(), `has no process "x.pid"`) {
		t.Errorf("nobody has asked: %v", err)
	}
	nobody := told("x")
	nobody.ID = "nobody"
	if err := w.reported(nobody); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("no container: %v", err)
	}
	if _, err := w.Exec(w.ctx(), w.execRequest("a", "x")); err != nil {
		t.Fatal(err)
	}
	w.up.start = func(context.Context, *taskAPI.StartRequest) (*taskAPI.StartResponse, error) {
		if w.reported(told("x")) == nil {
			t.Error("it was believed")
		}
		return nil, errBroken
	}
	_, err := w.Start(w.ctx(), &taskAPI.StartRequest{ID: "a", ExecID: "x"})
	if err == nil || !strings.Contains(err.Error(), `exec "x" in container "a": its runtime runc has reported a pid that is not to be believed`) {
		t.Errorf("got %v", err)
	}
	if _, err := w.Kill(w.ctx(), &taskAPI.KillRequest{ID: "a", ExecID: "x", Signal: 9}); !errdefs.IsNotFound(errgrpc.ToNative(err)) {
		t.Errorf("kill: %v", err)
	}
	if alive, err := p.ID().Alive(); !alive || err != nil {
		t.Errorf("the process has ended: %v", err)
	}
	p.end() // one that has ended already is nobody to be taken for it
	if _, err := w.Exec(w.ctx(), w.execRequest("a", "y")); err != nil {
		t.Fatal(err)
	}
	w.up.start = func(context.Context, *taskAPI.StartRequest) (*taskAPI.StartResponse, error) {
		return &taskAPI.StartResponse{}, w.reported(told("y"))
	}
	if _, err := w.Start(w.ctx(), &taskAPI.StartRequest{ID: "a", ExecID: "y"}); err != nil {
		t.Errorf("ended: %v", err)
	}
	w.deleted("a")
}

// TestKillOfAnExec goes to the very process that was proved, and not to a number.
func TestKillOfAnExec(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.made("a")
	if _, err := w.Exec(w.ctx(), w.execRequest("a", "x")); err != nil {
		t.Fatal(err)
	}
	kill := func(exec string) error {
		_, err := w.Kill(w.ctx(), &taskAPI.KillRequest{ID: "a", ExecID: exec, Signal: uint32(unix.SIGKILL)})
		return errgrpc.ToNative(err)
	}
	w.up.called()
	for _, exec := range []string{"x", "never added"} {
		if err := kill(exec); err != nil {
			t.Error(err)
		}
	}
	equal(t, "upstream was asked", w.up.called(), []string{"kill a x", "kill a never added"})
	p := sleeper(t)
	w.up.start = func(context.Context, *taskAPI.StartRequest) (*taskAPI.StartResponse, error) {
		held, err := linuxproc.Open(p.PID())
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		c.execs["x"].process = &member.Process{Process: held}
		return &taskAPI.StartResponse{Pid: uint32(p.PID())}, nil //nolint:gosec // process ids are positive
	}
	if _, err := w.Start(w.ctx(), &taskAPI.StartRequest{ID: "a", ExecID: "x"}); err != nil {
		t.Fatal(err)
	}
	if names := w.execsOf(c); names[uint32(p.PID())] != "x" { //nolint:gosec // process ids are positive
		t.Errorf("names are %v", names)
	}
	listed, err := w.describe(c, []int{0, p.PID(), 1})
	if err != nil || len(listed) != 2 || listed[0].Info == nil || listed[1].Info != nil {
		t.Errorf("listed are %v, %v", listed, err)
	}
	w.up.called()
	if err := kill("x"); err != nil {
		t.Error(err)
	}
	if ended, err := p.Ended(-1); !ended || err != nil {
		t.Errorf("it lives: %v", err)
	}
	p.end()
	if err := kill("x"); !errdefs.IsNotFound(err) {
		t.Errorf("the second one: %v", err)
	}
	equal(t, "upstream was asked", w.up.called(), nil)
	w.deleted("a")
	if c.execs["x"].process != nil {
		t.Error("it is held")
	}
}

// TestEndedExecsAreLetGo: of each process that a client had added and did not delete, the
// shim held a descriptor for as long as the container.
func TestEndedExecsAreLetGo(t *testing.T) {
	t.Parallel()
	for name, happens := range map[string]func(w *world, c *container){
		"processes are listed": func(w *world, c *container) {
			if names := w.execsOf(c); len(names) > 0 {
				t.Errorf("names are %v", names)
			}
		},
		"another is added": func(w *world, _ *container) {
			path := w.path("y.pid")
			if err := os.WriteFile(path, []byte("1"), 0o600); err != nil {
				t.Fatal(err)
			}
			if w.reported(report{Runtime: "runc", Command: "exec", ID: "a", PIDFile: path}) == nil {
				t.Error("process 1 is the container's")
			}
		},
	} {
		w := newWorld(t)
		c := w.made("a")
		p := sleeper(t)
		held, err := linuxproc.Open(p.PID())
		if err != nil {
			t.Fatal(err)
		}
		x := &execution{process: &member.Process{Process: held}}
		c.execs["x"], c.execs["y"] = x, &execution{}
		if names := w.execsOf(c); len(names) != 1 {
			t.Errorf("names are %v", names)
		}
		p.end()
		happens(w, c)
		if x.process != nil {
			t.Errorf("%s: it is held", name)
		}
		w.deleted("a")
	}
}

// TestKillOfAContainer: SIGKILL goes to the first process, past upstream and the
// runtime, once; SIGTERM goes to upstream, as what systemd takes for it.
func TestKillOfAContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.made("a")
	p := sleeper(t)
	init := p.ID()
	if _, known := w.firstProcess("a"); known {
		t.Error("there is a first process before the start")
	}
	c.record.Init = &init
	if first, known := w.firstProcess("a"); !known || first != init {
		t.Errorf("the first process is %v, %v", first, known)
	}
	kill := func(signal unix.Signal) error {
		_, err := w.Kill(w.ctx(), &taskAPI.KillRequest{ID: "a", Signal: uint32(signal)}) //nolint:gosec // signals are positive
		return errgrpc.ToNative(err)
	}
	for systemd, want := range map[bool]uint32{false: uint32(unix.SIGTERM), true: spec.StopSignal} {
		c.plan.Nesting = &spec.Nesting{Systemd: systemd}
		if err := kill(unix.SIGTERM); err != nil {
			t.Error(err)
		}
		if sent, _ := w.up.last.(*taskAPI.KillRequest); sent.GetSignal() != want {
			t.Errorf("systemd %v: upstream got %v", systemd, sent)
		}
	}
	w.up.called()
	if err := kill(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if ended, err := p.Ended(-1); !ended || err != nil {
		t.Errorf("it lives: %v", err)
	}
	p.end()
	if err := kill(unix.SIGKILL); !errdefs.IsNotFound(err) {
		t.Errorf("the second one: %v", err)
	}
	equal(t, "upstream was asked", w.up.called(), nil)
	(&creation{container: c, service: w.Service}).discard(w.ctx()) // whose process has ended
	equal(t, "upstream was asked", w.up.called(), []string{"wait a", "delete a"})
	w.deleted("a")
}

// TestKillOfAnUnbelievedProcess is refused: the runtime would send the signal to it.
func TestKillOfAnUnbelievedProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.made("a")
	c.refused = errBroken
	if _, err := w.Kill(w.ctx(), &taskAPI.KillRequest{ID: "a", Signal: 9}); !errdefs.IsUnavailable(errgrpc.ToNative(err)) {
		t.Errorf("kill: %v", err)
	}
	equal(t, "upstream was asked", w.up.called(), nil)
	w.up.start = func(context.Context, *taskAPI.StartRequest) (*taskAPI.StartResponse, error) {
		return nil, errors.New("upstream's")
	}
	if _, err := w.Start(w.ctx(), &taskAPI.StartRequest{ID: "a"}); !errdefs.IsUnavailable(errgrpc.ToNative(err)) {
		t.Errorf("start: %v", err)
	}
	c.refused = nil
	w.deleted("a")
}

// TestPidsOfAGroup: those in the container's own group, without the runtime.
func TestPidsOfAGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.made("a")
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, path, _ := strings.Cut(strings.TrimSpace(strings.Split(string(own), "\n")[0]), ":/")
	dirs, err := cgroupfs.Dirs("/" + path)
	if err != nil {
		t.Fatal(err)
	}
	cgroups := c.cgroups
	c.cgroups = append([]string{"/proc/absent"}, dirs...)
	listed, err := w.Pids(w.ctx(), &taskAPI.PidsRequest{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, p := range listed.Processes {
		found = found || int(p.Pid) == os.Getpid()
	}
	if asked := w.up.called(); found == (len(asked) > 0) {
		t.Errorf("found: %v, upstream was asked: %q", found, asked)
	}
	c.cgroups = cgroups
	w.deleted("a")
}

// TestGroupsThatTheRuntimeChose are known once they are handed over, and recorded at
// the start.
func TestGroupsThatTheRuntimeChose(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.spec.Linux.CgroupsPath = ""
	c := w.made("a")
	if len(c.groups()) > 0 {
		t.Errorf("groups are %q", c.groups())
	}
	c.found = []string{filepath.Join(w.dir, "group")}
	if _, err := w.Start(w.ctx(), &taskAPI.StartRequest{ID: "a"}); err != nil {
		t.Fatal(err)
	}
	r, err := record.Load(w.ns, "a")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "recorded", r.Cgroups, c.found)
	equal(t, "recorded as another's", r.Premade, c.found)
	equal(t, "groups", c.groups(), c.found)
	w.deleted("a")
}

// TestShutdownOfACreatedContainer leaves it alone.
func TestShutdownOfACreatedContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.made("a")
	if _, err := w.Shutdown(w.ctx(), &taskAPI.ShutdownRequest{ID: "a"}); err != nil {
		t.Error(err)
	}
	if err := w.undoAll(w.ctx()); err != nil {
		t.Error(err)
	}
	if w.container("a") == nil || len(w.kernel.Mounted()) != 1 {
		t.Error("it is gone")
	}
	w.deleted("a")
}
