// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/emptypb"
)

// creation is a call of Create that goes on. The runtime may take any time for it,
// and containerd does not cancel the call when its client has left: it asks to delete
// the container, which upstream does not know yet, and leaves the shim alone.
type creation struct {
	of     *container
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the container is there, or undone
}

// undoneAfter is how long Delete waits for the undoing of a container that is still
// being created. containerd gives it, Shutdown and `delete` 5 s in all.
const undoneAfter = 3 * time.Second

var errAbandoned = fmt.Errorf("the container was killed or deleted before the runtime had created it: %w", errdefs.ErrAborted)

// begin notes that a container is being created, so that its id is taken and others
// can end that. The returned function says that it is over. While one with the same
// id is being undone it waits, for some time.
func (s *Service) begin(ctx context.Context, c *container) (context.Context, func(), error) {
	late := time.NewTimer(earlierTimeout)
	defer late.Stop()
	for {
		earlier, n := s.take(ctx, c)
		switch {
		case n != nil:
			return n.ctx, func() { s.over(n) }, nil
		case earlier == nil || earlier.ctx.Err() == nil:
			return nil, nil, fmt.Errorf("container %q: %w", c.id, errdefs.ErrAlreadyExists)
		}
		select {
		case <-earlier.done:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-late.C:
			return nil, nil, fmt.Errorf("an earlier container with the id %q is still being undone, try again later or use another id: %w", c.id, errdefs.ErrUnavailable)
		}
	}
}

// take takes the id for a creation, or returns the one that has it; neither if a
// container has it.
func (s *Service) take(ctx context.Context, c *container) (earlier, n *creation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers[c.id] != nil || s.creations[c.id] != nil {
		return s.creations[c.id], nil
	}
	n = &creation{of: c, done: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancelCause(ctx)
	s.creations[c.id] = n
	return nil, n
}

func (s *Service) over(n *creation) {
	s.mu.Lock()
	delete(s.creations, n.of.id)
	s.mu.Unlock()
	n.cancel(nil)
	close(n.done)
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

// undone ends the creation of a container, and waits a moment until that is undone.
func (s *Service) undone(ctx context.Context, id string) {
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
