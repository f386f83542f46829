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
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	linuxproc "github.com/isolate-shim/isolate/internal/linux/proc"
	"github.com/isolate-shim/isolate/shim/ending"
	"github.com/isolate-shim/isolate/spec"
)

// Kill sends a signal. Clients ask a container to stop by SIGTERM. If the container's
// init is systemd, Kill sends systemd's own signal for that instead: SIGTERM would only
// make systemd re-execute itself.
//
// SIGKILL for the container does not go through upstream and the runtime, which may
// wait for another call: an exec, a start. It answers at once, and what it takes to
// end the container goes on without the caller. Upstream notices the end.
func (s *Service) Kill(ctx context.Context, r *taskAPI.KillRequest) (*emptypb.Empty, error) {
	if r.ExecID == "" && r.Signal == uint32(unix.SIGKILL) && s.abandon(r.ID) != nil {
		return &emptypb.Empty{}, nil
	}
	c := s.container(r.ID)
	if c != nil && r.ExecID != "" {
		return s.killExec(ctx, c, r)
	}
	if c != nil && c.refused != nil && c.init == nil {
		return nil, toGRPC(c.refused) // the runtime would signal that process
	}
	if c != nil && r.ExecID == "" && r.Signal == uint32(unix.SIGKILL) && c.record.Init != nil {
		if err := c.end(detached(ctx)); err != nil {
			return nil, toGRPC(err)
		}
		return &emptypb.Empty{}, nil
	}
	if c != nil && r.ExecID == "" && r.Signal == uint32(unix.SIGTERM) && c.plan.Nesting != nil && c.plan.Nesting.Systemd {
		r = proto.CloneOf(r)
		r.Signal = spec.StopSignal
	}
	return s.TTRPCTaskService.Kill(ctx, r)
}

// firstProcess names the first process of a container, if it is known.
func (s *Service) firstProcess(id string) (linuxproc.ID, bool) {
	c := s.container(id)
	if c == nil || c.record.Init == nil {
		return linuxproc.ID{}, false
	}
	return *c.record.Init, true
}

// end sends SIGKILL to the first process, and has the container ended if that is not
// enough. It does not wait for the end.
func (c *container) end(ctx context.Context) error {
	init, err := c.record.Init.Open()
	if errors.Is(err, linuxproc.ErrEnded) {
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	if err == nil {
		err = errors.Join(init.Signal(unix.SIGKILL), init.Close())
	}
	if err != nil {
		return fmt.Errorf("kill container %q: %w", c.id, err)
	}
	if c.ending.CompareAndSwap(false, true) {
		go func() {
			if err := ending.End(ctx, ending.Of(ctx, c.record)); err != nil {
				log.G(ctx).WithError(err).Warn("isolate: kill")
			}
			c.ending.Store(false) // a later SIGKILL tries again
		}()
	}
	return nil
}

// endTimeout bounds how long the undoing of a container waits for its end.
const endTimeout = 4 * time.Second

// endAndWait ends the container, and waits for that at most endTimeout. The error names
// what is left.
func (c *container) endAndWait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	return ending.End(ctx, ending.Of(ctx, c.record))
}
