// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/isolate-shim/isolate/spec"
)

// Exec adds a process. Its spec comes from what containerd stored, which is not
// what the shim made of the container's, so it gets the same treatment as the
// init process.
func (s *Service) Exec(ctx context.Context, r *taskAPI.ExecProcessRequest) (*emptypb.Empty, error) {
	c := s.container(r.ID)
	if c == nil {
		return s.TTRPCTaskService.Exec(ctx, r) // answers that there is none
	}
	edited, warnings, err := spec.ExecProcess(r.Spec.GetValue(), &c.plan)
	if err != nil {
		return nil, toGRPC(fmt.Errorf("exec %q in container %q: %w", r.ExecID, r.ID, err))
	}
	for _, w := range warnings {
		log.G(ctx).WithField("id", r.ID).WithField("exec", r.ExecID).Warn("isolate: " + w)
	}
	if c.limits != nil {
		var wanted []specs.POSIXRlimit
		if edited, wanted, err = spec.TakeLimits(edited); err != nil {
			return nil, toGRPC(fmt.Errorf("exec %q in container %q: %w", r.ExecID, r.ID, err))
		}
		c.limits.want(r.ExecID, wanted)
	}
	out := proto.CloneOf(r)
	out.Spec = &anypb.Any{TypeUrl: r.Spec.GetTypeUrl(), Value: edited}
	resp, err := s.TTRPCTaskService.Exec(ctx, out)
	if err == nil {
		s.mu.Lock()
		c.execs[r.ExecID] = nil
		s.mu.Unlock()
	}
	return resp, err
}
