// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/isolate-shim/isolate/spec"
)

// Update changes limits. What the client sends comes from the spec that containerd
// stored, and is edited as that was.
func (s *Service) Update(ctx context.Context, r *taskAPI.UpdateTaskRequest) (*emptypb.Empty, error) {
	if r.Resources == nil {
		return s.TTRPCTaskService.Update(ctx, r)
	}
	edited, err := spec.UpdateResources(r.Resources.Value)
	if err != nil {
		return nil, toGRPC(fmt.Errorf("update container %q: %w", r.ID, err))
	}
	out := proto.CloneOf(r)
	out.Resources.Value = edited
	return s.TTRPCTaskService.Update(ctx, out)
}
