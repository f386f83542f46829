// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"
	"sync"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	apitypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"

	linuxproc "github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/temporary"
)

// bounded is upstream's service, which no container can hold up for good.
//
// Upstream keeps a lock of a process while the runtime works on it, and a runtime
// may take any time: to execute a program that lies on a FUSE file system of the
// container's own takes as long as the container's root likes. Two things follow.
// What the runtime does for a container ends a moment after the container: then
// nothing that it works on is left. And what does not need the runtime answers
// without it.
type bounded struct {
	taskAPI.TTRPCTaskService
	// first names the first process of a container, if that is known.
	first func(id string) (linuxproc.ID, bool)

	states singleflight.Group // of calls of State, by process

	mu     sync.Mutex
	known  map[processKey]*taskAPI.StateResponse // what is told while upstream does not answer
	starts map[processKey]*start                 // that go on
}

// processKey names a process of a container; exec is empty for the first one.
type processKey struct{ id, exec string }

// start is a call of Start that goes on.
type start struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// answerAfter is how long an answer may wait for upstream.
const answerAfter = time.Second

func newBounded(upstream taskAPI.TTRPCTaskService, first func(string) (linuxproc.ID, bool)) *bounded {
	return &bounded{
		TTRPCTaskService: upstream, first: first,
		known: map[processKey]*taskAPI.StateResponse{}, starts: map[processKey]*start{},
	}
}

// whileItLives returns a context that ends with ctx, and a second or two after the
// container is about to end. The runtime is killed with it: as long as a runtime that hangs
// does not reap a process that it has made in the container, the kernel keeps the first one.
func (b *bounded) whileItLives(ctx context.Context, id string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	first, ok := b.first(id)
	if !ok {
		return ctx, cancel
	}
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for before := false; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			ending, err := first.Ending()
			if ending = ending && err == nil; ending && before {
				cancel()
				return
			}
			before = ending
		}
	}()
	return ctx, cancel
}

// temporaryFiles lets upstream make some until done is called.
func temporaryFiles(ctx context.Context) (done func()) {
	done, err := temporary.Use(record.Root)
	if err != nil {
		log.G(ctx).WithError(err).Warn("isolate: a shim that is killed now leaves temporary files")
		return func() {}
	}
	return done
}

// Create notes what State tells of the first process.
func (b *bounded) Create(ctx context.Context, r *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
	if r.Terminal {
		defer temporaryFiles(ctx)()
	}
	resp, err := b.TTRPCTaskService.Create(ctx, r)
	if err == nil {
		b.note(processKey{id: r.ID}, &taskAPI.StateResponse{
			ID: r.ID, Bundle: r.Bundle, Pid: resp.Pid, Status: apitypes.Status_CREATED,
			Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal,
		})
	}
	return resp, err
}

// Exec notes what State tells of a further process.
func (b *bounded) Exec(ctx context.Context, r *taskAPI.ExecProcessRequest) (*emptypb.Empty, error) {
	resp, err := b.TTRPCTaskService.Exec(ctx, r)
	if err == nil {
		b.note(processKey{r.ID, r.ExecID}, &taskAPI.StateResponse{
			ID: r.ExecID, Status: apitypes.Status_CREATED,
			Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal,
		})
	}
	return resp, err
}

func (b *bounded) note(p processKey, state *taskAPI.StateResponse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known[p] = state
}

// Start may take long; see [bounded].
func (b *bounded) Start(ctx context.Context, r *taskAPI.StartRequest) (*taskAPI.StartResponse, error) {
	ctx, cancel := b.whileItLives(ctx, r.ID)
	defer cancel()
	p, s := processKey{r.ID, r.ExecID}, &start{cancel, make(chan struct{})}
	b.mu.Lock()
	b.starts[p] = s
	known := b.known[p]
	b.mu.Unlock()
	if r.ExecID != "" || known != nil && known.Terminal { // which a restored container gets now
		defer temporaryFiles(ctx)()
	}
	resp, err := b.TTRPCTaskService.Start(ctx, r)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.starts[p] == s {
		delete(b.starts, p)
	}
	close(s.done)
	if known := b.known[p]; err == nil && known != nil {
		// A new one: the old one may be on its way to a client.
		b.known[p] = &taskAPI.StateResponse{
			ID: known.ID, Bundle: known.Bundle, Pid: resp.Pid, Status: apitypes.Status_RUNNING,
			Stdin: known.Stdin, Stdout: known.Stdout, Stderr: known.Stderr, Terminal: known.Terminal,
		}
	}
	return resp, err
}

// started waits, a moment, for the start of a process that goes on. Upstream would
// wait for its end.
func (b *bounded) started(ctx context.Context, p processKey) (*start, error) {
	b.mu.Lock()
	s := b.starts[p]
	b.mu.Unlock()
	if s == nil || p.exec == "" {
		return nil, nil
	}
	select {
	case <-s.done:
		return nil, nil
	case <-ctx.Done():
		return s, errgrpc.ToGRPC(ctx.Err())
	case <-time.After(answerAfter):
		return s, errgrpc.ToGRPC(fmt.Errorf("the runtime is still starting process %q of container %q: %w", p.exec, p.id, errdefs.ErrFailedPrecondition))
	}
}

// Kill sends a signal. SIGKILL for a process that is still being started ends that.
func (b *bounded) Kill(ctx context.Context, r *taskAPI.KillRequest) (*emptypb.Empty, error) {
	s, err := b.started(ctx, processKey{r.ID, r.ExecID})
	if err != nil && r.Signal == uint32(unix.SIGKILL) {
		s.cancel()
		return &emptypb.Empty{}, nil
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := b.whileItLives(ctx, r.ID)
	defer cancel()
	return b.TTRPCTaskService.Kill(ctx, r)
}

// deleteTimeout is how long the runtime may take to delete, with its hooks, for a
// client that sets no limit: as long as the kubelet's gives it. Upstream's answers to
// Wait and State wait for it.
const deleteTimeout = 10 * time.Second

// Delete deletes a process, unless it is still being started.
func (b *bounded) Delete(ctx context.Context, r *taskAPI.DeleteRequest) (*taskAPI.DeleteResponse, error) {
	if _, err := b.started(ctx, processKey{r.ID, r.ExecID}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	resp, err := b.TTRPCTaskService.Delete(ctx, r)
	if err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		for p := range b.known {
			if p.id == r.ID && (r.ExecID == "" || p.exec == r.ExecID) {
				delete(b.known, p)
			}
		}
	}
	return resp, err
}

// ResizePty sets the size of a terminal, unless the process is still being started.
func (b *bounded) ResizePty(ctx context.Context, r *taskAPI.ResizePtyRequest) (*emptypb.Empty, error) {
	if _, err := b.started(ctx, processKey{r.ID, r.ExecID}); err != nil {
		return nil, err
	}
	return b.TTRPCTaskService.ResizePty(ctx, r)
}

// State tells the state of a process: what upstream says, or if that does not
// answer, what was last known.
func (b *bounded) State(ctx context.Context, r *taskAPI.StateRequest) (*taskAPI.StateResponse, error) {
	// One that waits is enough.
	answer := b.states.DoChan(r.ID+"/"+r.ExecID, func() (any, error) {
		return b.TTRPCTaskService.State(context.WithoutCancel(ctx), r)
	})
	late := time.NewTimer(answerAfter)
	defer late.Stop()
	select {
	case a := <-answer:
		state, _ := a.Val.(*taskAPI.StateResponse)
		return state, a.Err
	case <-ctx.Done():
		return nil, errgrpc.ToGRPC(ctx.Err())
	case <-late.C:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if known := b.known[processKey{r.ID, r.ExecID}]; known != nil {
		return known, nil
	}
	return nil, errgrpc.ToGRPC(fmt.Errorf("the runtime is busy with container %q: %w", r.ID, errdefs.ErrUnavailable))
}

// Pause stops the processes.
func (b *bounded) Pause(ctx context.Context, r *taskAPI.PauseRequest) (*emptypb.Empty, error) {
	ctx, cancel := b.whileItLives(ctx, r.ID)
	defer cancel()
	return b.TTRPCTaskService.Pause(ctx, r)
}

// Resume lets them go on.
func (b *bounded) Resume(ctx context.Context, r *taskAPI.ResumeRequest) (*emptypb.Empty, error) {
	ctx, cancel := b.whileItLives(ctx, r.ID)
	defer cancel()
	return b.TTRPCTaskService.Resume(ctx, r)
}

// Update changes limits.
func (b *bounded) Update(ctx context.Context, r *taskAPI.UpdateTaskRequest) (*emptypb.Empty, error) {
	ctx, cancel := b.whileItLives(ctx, r.ID)
	defer cancel()
	return b.TTRPCTaskService.Update(ctx, r)
}
