// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/log"

	"github.com/isolate-shim/isolate/idmap/chown"
	"github.com/isolate-shim/isolate/idmap/pool"
	"github.com/isolate-shim/isolate/shim/arrival"
	"github.com/isolate-shim/isolate/shim/ending"
	"github.com/isolate-shim/isolate/shim/member"
	"github.com/isolate-shim/isolate/shim/notify"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/visit"
	"github.com/isolate-shim/isolate/spec"
)

// container is what Exec, Kill, Delete and their like need of a container.
type container struct {
	id      string
	plan    spec.Plan
	sandbox *spec.Sandbox // in mode join: whom it joined
	held    *pool.Lease   // of a range, or of the mapping that the caller made
	record  *record.Record
	cgroups []string // directories, one in each hierarchy
	found   []string // once delegated is closed: the groups that the container was given
	// delegated is closed when the cgroups are handed over; nil if they are not.
	delegated chan struct{}
	// snapshot is the rootfs if its ids were moved on disk.
	snapshot *chown.Snapshot
	// visits settles what the host's programs write into its rootfs, whose upper layer
	// is upper; nil if they can write nothing.
	visits *visit.Watch
	upper  string
	// arrivals gives stores to programs that are installed in it; nil for none.
	arrivals *arrival.Watch
	// shelves makes stores of where it mounts overlays; nil as long as it cannot.
	shelves atomic.Pointer[arrival.Container]
	// ownPIDs is set if the container is alone in its pid namespace.
	ownPIDs bool
	// init is its first process, which was proved to be; nil before there is one.
	init *member.Process
	// ending is set while the container is being killed.
	ending atomic.Bool
	// notifier shows the limits to containers inside; nil for none.
	notifier *notify.Notifier
	// limits are set by the shim; nil if the runtime does it.
	limits *limits
	// refused is why the process that the runtime has reported as the first one is
	// not believed to be, or is not as planned.
	refused error
	// execs are the processes that clients have added, by their ids; the service's
	// mutex is for it.
	execs map[string]*execution
}

// asSandbox describes the container for a container that joins it. It is nil before the
// container has a process.
func (c *container) asSandbox() *spec.Sandbox {
	mode := c.plan.Mode
	if mode == spec.ModeJoin {
		mode = c.sandbox.Mode
	}
	if c.record.Init == nil {
		return nil
	}
	out := sandbox(c.id, mode, c.record)
	out.Network = c.plan.Network
	return out
}

func sandbox(id string, mode spec.Mode, r *record.Record) *spec.Sandbox {
	return &spec.Sandbox{ID: id, Mode: mode, Userns: fmt.Sprintf("/proc/%d/ns/user", r.Init.PID), Mapping: r.Mapping}
}

// delete is undo for a container whose creation is over.
func (c *container) delete(ctx context.Context) error {
	unlock, err := lockID(ctx, c.record.Namespace, c.id)
	if err != nil {
		return err
	}
	defer unlock()
	return c.undo(ctx)
}

// undo takes back everything: first what the record names, then the lease. It may be
// called at any stage of the container's making. The id must be reserved.
func (c *container) undo(ctx context.Context) error {
	var errs []error
	c.awaitDelegation()
	if c.notifier != nil {
		errs = append(errs, c.notifier.Close())
	}
	if c.arrivals != nil {
		errs = append(errs, c.arrivals.Close())
		c.arrivals = nil
	}
	if c.visits != nil {
		if c.visits.Close() {
			errs = append(errs, chown.Settled(c.upper))
		}
		c.visits = nil
	}
	if c.record != nil {
		// A runtime that failed may have left a container.
		alive, left := ending.Undo(ctx, c.record, endTimeout)
		errs = append(errs, alive, left)
	}
	for _, e := range c.execs {
		e.close()
	}
	if c.init != nil {
		errs = append(errs, c.init.Close())
		c.init = nil
	}
	if c.snapshot != nil {
		errs = append(errs, c.snapshot.Close())
		c.snapshot = nil
	}
	if c.held != nil {
		err := c.held.Release(ctx)
		if errors.Is(err, pool.ErrInUse) {
			// It is free when the last process with it has ended.
			log.G(ctx).WithError(err).WithField("id", c.id).Warn("isolate: ids stay reserved for now")
			err = nil
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up container %q: %w", c.id, err)
	}
	return nil
}

// Start starts a process. The container's first process starts once the container has
// its cgroups.
func (s *Service) Start(ctx context.Context, r *taskAPI.StartRequest) (*taskAPI.StartResponse, error) {
	c := s.container(r.ID)
	if c == nil {
		return s.TTRPCTaskService.Start(ctx, r)
	}
	if r.ExecID == "" {
		if err := c.recordFound(); err != nil {
			return nil, toGRPC(err)
		}
		if c.arrivals != nil {
			c.arrivals.Ready()
		}
	}
	if err := c.limits.lend(r.ExecID); err != nil {
		return nil, toGRPC(err)
	}
	if r.ExecID == "" {
		resp, err := s.TTRPCTaskService.Start(ctx, r)
		if err != nil && c.refused != nil {
			return nil, toGRPC(c.refused)
		}
		return resp, err
	}
	resp, err := s.startExec(ctx, c, r)
	if err == nil {
		// It has run for a moment with others.
		if err := c.limits.set(int(resp.Pid), r.ExecID); err != nil {
			log.G(ctx).WithField("id", r.ID).WithField("exec", r.ExecID).Warnf("isolate: limits of the process were not set: %v", err)
		}
	}
	return resp, err
}

// Delete deletes a process. With the init process goes all that was done for
// the container.
func (s *Service) Delete(ctx context.Context, r *taskAPI.DeleteRequest) (*taskAPI.DeleteResponse, error) {
	if r.ExecID == "" {
		defer s.deleting()()
		s.awaitUndo(ctx, r.ID)
		if c := s.container(r.ID); c != nil {
			c.awaitDelegation() // of a container that was never started
			c.emptyCgroups(ctx)
		}
	}
	resp, err := s.TTRPCTaskService.Delete(ctx, r)
	if err != nil {
		return resp, err
	}
	if r.ExecID != "" {
		if c := s.container(r.ID); c != nil {
			s.forgetExec(c, r.ExecID)
		}
		return resp, nil
	}
	s.mu.Lock()
	c := s.containers[r.ID]
	delete(s.containers, r.ID)
	s.mu.Unlock()
	s.healer.Remove(r.ID)
	if c != nil {
		// The record stays after an error, and `delete`, which containerd runs
		// next, tries once more.
		if err := c.delete(detached(ctx)); err != nil {
			log.G(ctx).WithError(err).Warn("isolate: delete")
		}
	}
	return resp, nil
}
