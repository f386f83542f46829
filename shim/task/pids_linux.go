// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"

	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
)

// Pids lists the container's processes: those in its cgroup and below. Upstream asks
// the runtime, and waits for processes that are still being started; and crun's ps
// does not look below the container's group, where on cgroup v2 all processes
// are: in the leaf that settle makes, and in groups of inner containers.
func (s *Service) Pids(ctx context.Context, r *taskAPI.PidsRequest) (*taskAPI.PidsResponse, error) {
	c := s.container(r.ID)
	if c == nil {
		return s.TTRPCTaskService.Pids(ctx, r)
	}
	for _, dir := range c.groups() { // a process is in a group of each hierarchy
		pids, err := cgroupfs.Processes(ctx, dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.G(ctx).WithError(err).WithField("id", r.ID).Debug("isolate: processes")
		}
		if err == nil && len(pids) > 0 {
			processes, err := s.describe(c, pids)
			return &taskAPI.PidsResponse{Processes: processes}, toGRPC(err)
		}
	}
	return s.TTRPCTaskService.Pids(ctx, r) // it has ended, or has another cgroup
}

// describe gives the processes that clients have added the names that these gave
// them.
func (s *Service) describe(c *container, pids []int) ([]*task.ProcessInfo, error) {
	names := s.execsOf(c)
	listed := make([]*task.ProcessInfo, 0, len(pids))
	for _, pid := range pids {
		if pid == 0 { // of another pid namespace
			continue
		}
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

// execsOf returns the names of the processes that clients have added, by pid.
func (s *Service) execsOf(c *container) map[uint32]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := map[uint32]string{}
	for id, e := range c.execs {
		if p := e.alive(); p != nil {
			names[uint32(p.PID())] = id //nolint:gosec // process ids are positive
		}
	}
	return names
}
