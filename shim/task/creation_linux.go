// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/userns"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/options"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/shim/stage"
	"github.com/isolate-shim/isolate/spec"
)

// creation makes one container. It is a transaction that lives as long as the call of
// Create, some 100 ms: what it has done is in the container and in its record, and undo
// takes that back.
//
// The runtime may take any time for it, and containerd does not cancel the call when
// its client has left: it asks to delete the container, which upstream does not know
// yet, and leaves the shim alone.
type creation struct {
	*container // what stays when the creation is over

	service *Service
	request *taskAPI.CreateTaskRequest
	ctx     context.Context // ends with the call, and when somebody abandons it
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed when the container is there, or undone

	// What is asked for.
	namespace string // containerd's
	doc       *spec.Document
	source    *rootfs.Source
	settings  options.Settings
	cfg       config.Config // with the container's annotations
	bin       runtime.Binary

	// What is held until the container has it.
	probe    *lxcfs.Probe
	userns   *userns.Namespace // nil if the shim makes none
	clocks   pendingClocks
	standIns []stage.StandIn // for settings of the kernel

	// premade are the cgroups of the container that existed before it.
	premade []string
	// premounted is the caller's mount that the container's replaces; nil for none.
	premounted *rootfs.Premounted
	// sealed is set if the rootfs is an overlay of ours that nobody may write to.
	sealed bool
	// stages are those that are over, the last one at stageEnd.
	stages   record.Stages
	stageEnd time.Time
	// attached is what the container got of lxcfs.
	attached attachedFiles
}

// end notes that a stage is over.
func (c *creation) end(stage string) {
	now := time.Now()
	c.stages = append(c.stages, record.Stage{Name: stage, Took: now.Sub(c.stageEnd)})
	c.stageEnd = now
}

// undoneAfter is how long Delete waits for the undoing of a container that is still
// being created. containerd gives it, Shutdown and `delete` 5 s in all.
const undoneAfter = 3 * time.Second

var errAbandoned = fmt.Errorf("the container was killed or deleted before the runtime had created it: %w", errdefs.ErrAborted)

// begin notes that a container is being created: its id is taken, and others can end
// the returned context. The caller must call over. While a container with the same id is
// being undone, begin waits for some time.
func (s *Service) begin(ctx context.Context, r *taskAPI.CreateTaskRequest) (context.Context, *creation, error) {
	late := time.NewTimer(earlierTimeout)
	defer late.Stop()
	for {
		earlier, c := s.reserve(ctx, r)
		switch {
		case c != nil:
			return c.ctx, c, nil
		case earlier == nil || earlier.ctx.Err() == nil:
			return nil, nil, fmt.Errorf("container %q: %w", r.ID, errdefs.ErrAlreadyExists)
		}
		select {
		case <-earlier.done:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-late.C:
			return nil, nil, fmt.Errorf("an earlier container with the id %q is still being undone, try again later or use another id: %w", r.ID, errdefs.ErrUnavailable)
		}
	}
}

// reserve reserves the id for a new creation c. If another creation has the id, it
// returns that one as earlier. If a container has the id, both are nil.
func (s *Service) reserve(ctx context.Context, r *taskAPI.CreateTaskRequest) (earlier, c *creation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers[r.ID] != nil || s.creations[r.ID] != nil {
		return s.creations[r.ID], nil
	}
	c = &creation{
		container: &container{id: r.ID, execs: map[string]*execution{}},
		service:   s, request: r, done: make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	s.creations[r.ID] = c
	return nil, c
}

// over says that a creation is over, and gives its id back.
func (s *Service) over(c *creation) {
	s.mu.Lock()
	delete(s.creations, c.id)
	s.armAlone(aloneAtLast)
	s.mu.Unlock()
	c.cancel(nil)
	close(c.done)
}

// undo takes back everything that was done. It may be called after any step, while the
// id is reserved.
func (c *creation) undo(ctx context.Context) error {
	c.closeStandIns()
	return c.container.undo(ctx)
}

// letGo lets go of the namespaces, which the runtime has joined or will not.
func (c *creation) letGo() {
	c.clocks.release()
	if c.userns != nil {
		c.userns.Close() //nolint:errcheck // only held
	}
}

// warn logs what the container's user will miss, and notes it in the record.
func (c *creation) warn(ctx context.Context, warnings ...string) {
	for _, w := range warnings {
		log.G(ctx).Warn("isolate: " + w)
		c.record.Warnings = append(c.record.Warnings, w)
	}
}

// discardTimeout bounds how long a container that could not be finished may
// take to die.
const discardTimeout = 10 * time.Second

// discard has the runtime remove a container that could not be finished. It logs its
// errors: the caller reports the error that led here, and containerd runs `delete` for
// what is left.
func (c *creation) discard(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, discardTimeout)
	defer cancel()
	upstream := c.service.TTRPCTaskService
	steps := []func() error{
		func() error { return c.endAndWait(ctx) },
		func() error { _, err := upstream.Wait(ctx, &taskAPI.WaitRequest{ID: c.id}); return err },
		func() error { _, err := upstream.Delete(ctx, &taskAPI.DeleteRequest{ID: c.id}); return err },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			log.G(ctx).WithError(err).Warn("isolate: discard unfinished container")
		}
	}
}

// enter makes a container known, unless its creation was ended.
func (s *Service) enter(ctx context.Context, c *container) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.containers[c.id] = c
	return nil
}

// abandon ends the creation of a container, if it goes on, and returns it.
func (s *Service) abandon(id string) *creation {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.creations[id]
	if c == nil || s.containers[id] != nil {
		return nil
	}
	c.cancel(errAbandoned)
	return c
}

// awaitUndo ends the creation of a container, and waits a moment until that is undone.
func (s *Service) awaitUndo(ctx context.Context, id string) {
	c := s.abandon(id)
	if c == nil {
		return
	}
	select {
	case <-c.done:
	case <-ctx.Done():
	case <-time.After(undoneAfter):
	}
}

// Shutdown ends the shim, if it has no containers. One that its client has given up
// while it was being created is none.
func (s *Service) Shutdown(ctx context.Context, r *taskAPI.ShutdownRequest) (*emptypb.Empty, error) {
	s.abandon(r.ID)
	return s.TTRPCTaskService.Shutdown(ctx, r)
}

// undoAll lets the shim end when no creation goes on any more.
func (s *Service) undoAll(ctx context.Context) error {
	s.mu.Lock()
	var all []*creation
	for id, c := range s.creations {
		if s.containers[id] == nil {
			c.cancel(errAbandoned)
		}
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		select {
		case <-c.done:
		case <-ctx.Done():
			return errors.New("a container that was being created is not undone yet")
		}
	}
	return nil
}
