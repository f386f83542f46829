// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/cgroups/v3"
	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"

	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
)

// Pids lists the container's processes. Upstream asks the runtime, and crun's ps
// does not look below the container's group, where on cgroup v2 all processes
// are: in the leaf that settle makes, and in groups of inner containers.
func (s *Service) Pids(ctx context.Context, r *taskAPI.PidsRequest) (*taskAPI.PidsResponse, error) {
	resp, err := s.TTRPCTaskService.Pids(ctx, r)
	c := s.container(r.ID)
	if err != nil || c == nil || cgroups.Mode() != cgroups.Unified {
		return resp, err
	}
	for _, dir := range c.cgroups { // one
		pids, err := cgroupfs.Processes(ctx, dir)
		if err != nil {
			// What the runtime has found is the answer then.
			log.G(ctx).WithError(err).WithField("id", r.ID).Debug("isolate: processes")
			continue
		}
		if resp.Processes, err = s.withMissing(ctx, c, resp.Processes, pids); err != nil {
			return nil, toGRPC(err)
		}
	}
	return resp, nil
}

// withMissing adds processes that are not listed, those that clients have added with
// the names that these gave them.
func (s *Service) withMissing(ctx context.Context, c *container, listed []*task.ProcessInfo, pids []int) ([]*task.ProcessInfo, error) {
	pids = slices.DeleteFunc(pids, func(pid int) bool {
		return pid == 0 || slices.ContainsFunc(listed, func(p *task.ProcessInfo) bool { return int(p.Pid) == pid })
	})
	if len(pids) == 0 {
		return listed, nil
	}
	names := map[uint32]string{}
	for _, exec := range s.execsOf(c) {
		// One that was deleted meanwhile has no state.
		if state, err := s.State(ctx, &taskAPI.StateRequest{ID: c.id, ExecID: exec}); err == nil {
			names[state.Pid] = exec
		}
	}
	for _, pid := range pids {
		info := &task.ProcessInfo{Pid: uint32(pid)} //nolint:gosec // process ids are positive
		if name, ok := names[info.Pid]; ok {
			details, err := typeurl.MarshalAnyToProto(&options.ProcessDetails{ExecID: name})
			if err != nil {
				return nil, fmt.Errorf("describe process %d: %w", pid, err)
			}
			info.Info = details
		}
		listed = append(listed, info)
	}
	return listed, nil
}

func (s *Service) execsOf(c *container) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(c.execs)
}
