// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"

	linuxproc "github.com/isolate-shim/isolate/internal/linux/proc"
)

// stuck is an upstream whose runtime works on a start until its context ends, and
// whose locks all others wait for.
type stuck struct {
	taskAPI.TTRPCTaskService
	started chan struct{}
	over    chan struct{}
}

func newStuck() *stuck { return &stuck{started: make(chan struct{}), over: make(chan struct{})} }

func (s *stuck) Create(context.Context, *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
	return &taskAPI.CreateTaskResponse{Pid: 7}, nil
}

func (s *stuck) Exec(context.Context, *taskAPI.ExecProcessRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

func (s *stuck) Start(ctx context.Context, _ *taskAPI.StartRequest) (*taskAPI.StartResponse, error) {
	close(s.started)
	<-ctx.Done()
	close(s.over)
	return nil, ctx.Err()
}

func (s *stuck) State(context.Context, *taskAPI.StateRequest) (*taskAPI.StateResponse, error) {
	<-s.over
	return nil, errors.New("over")
}

func (s *stuck) Kill(context.Context, *taskAPI.KillRequest) (*emptypb.Empty, error) {
	<-s.over
	return nil, errors.New("over")
}

func (s *stuck) Delete(context.Context, *taskAPI.DeleteRequest) (*taskAPI.DeleteResponse, error) {
	<-s.over
	return nil, errors.New("over")
}

// startStuck starts an exec that never is.
func startStuck(t *testing.T, first func(string) (linuxproc.ID, bool)) (*bounded, *stuck, <-chan error) {
	t.Helper()
	s := newStuck()
	b := newBounded(s, first)
	if _, err := b.Create(t.Context(), &taskAPI.CreateTaskRequest{ID: "a", Bundle: "/b", Stdout: "out"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Exec(t.Context(), &taskAPI.ExecProcessRequest{ID: "a", ExecID: "e"}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := b.Start(context.WithoutCancel(t.Context()), &taskAPI.StartRequest{ID: "a", ExecID: "e"})
		done <- err
	}()
	<-s.started
	return b, s, done
}

func nobody(string) (linuxproc.ID, bool) { return linuxproc.ID{}, false }

// TestExecThatHangsHoldsNobodyUp: State, Kill and Delete waited for it.
func TestExecThatHangsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	b, _, done := startStuck(t, nobody)
	for range 2 {
		state, err := b.State(t.Context(), &taskAPI.StateRequest{ID: "a", ExecID: "e"})
		if err != nil || state.Status != apitypes.Status_CREATED || state.ID != "e" {
			t.Errorf("%v, %v", state, err)
		}
		state, err = b.State(t.Context(), &taskAPI.StateRequest{ID: "a"})
		if err != nil || state.Pid != 7 || state.Bundle != "/b" || state.Stdout != "out" {
			t.Errorf("%v, %v", state, err)
		}
	}
	if _, err := b.State(t.Context(), &taskAPI.StateRequest{ID: "other"}); !errdefs.IsUnavailable(errgrpc.ToNative(err)) {
		t.Error(err)
	}
	if _, err := b.Kill(t.Context(), &taskAPI.KillRequest{ID: "a", ExecID: "e", Signal: uint32(unix.SIGTERM)}); !errdefs.IsFailedPrecondition(errgrpc.ToNative(err)) {
		t.Error(err)
	}
	if _, err := b.Delete(t.Context(), &taskAPI.DeleteRequest{ID: "a", ExecID: "e"}); !errdefs.IsFailedPrecondition(errgrpc.ToNative(err)) {
		t.Error(err)
	}
	if _, err := b.Kill(t.Context(), &taskAPI.KillRequest{ID: "a", ExecID: "e", Signal: uint32(unix.SIGKILL)}); err != nil {
		t.Error(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("SIGKILL did not end the start")
	}
}

// TestRuntimeOutlivesContainer: a runtime that hung in a start or an exec kept the
// shim, which waits for it, when the container had ended.
func TestRuntimeOutlivesContainer(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := linuxproc.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	_, _, done := startStuck(t, func(string) (linuxproc.ID, bool) { return p.ID(), true })
	select {
	case err := <-done:
		t.Fatal("ended while the container lives:", err)
	case <-time.After(2500 * time.Millisecond):
	}
	if err := errors.Join(p.Signal(unix.SIGKILL), p.Close()); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it goes on")
	}
}

// TestRuntimeKeepsContainer: a runtime that hung in an exec did not reap the process that
// it had made in the container, without which the container's first process does not end.
func TestRuntimeKeepsContainer(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make pid namespaces")
	}
	cmd := exec.Command("sleep", "100")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := linuxproc.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	added := exec.Command("sleep", "100")
	joined := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the function
		err := unix.Setns(p.FD(), unix.CLONE_NEWPID)
		if err == nil {
			err = added.Start()
		}
		joined <- err
	}()
	if err := <-joined; err != nil {
		t.Fatal(err)
	}
	_, _, done := startStuck(t, func(string) (linuxproc.ID, bool) { return p.ID(), true })
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it goes on")
	}
	if ended, err := p.Ended(0); ended || err != nil {
		t.Error("the first process has not waited for the other one", err)
	}
	_, _ = added.Wait(), cmd.Wait() // they were killed
}
