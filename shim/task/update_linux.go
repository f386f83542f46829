// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/isolate-shim/isolate/shim/cgroup"
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
	if changesQuota(edited) {
		defer s.withdrawQuota(ctx, r.ID)()
	}
	return s.TTRPCTaskService.Update(ctx, out)
}

// changesQuota tells whether resources, in JSON, have a CPU quota or its period.
func changesQuota(resources []byte) bool {
	var r specs.LinuxResources
	return json.Unmarshal(resources, &r) == nil && r.CPU != nil && (r.CPU.Quota != nil || r.CPU.Period != nil)
}

// withdrawQuota takes from the containers inside what they have of the container's CPU
// quota, which may change now. renew gives them the new one.
func (s *Service) withdrawQuota(ctx context.Context, id string) (renew func()) {
	c := s.container(id)
	if c == nil || c.notifier == nil {
		return func() {}
	}
	share := cgroup.ShareOf(c.cgroups)
	if share == nil {
		return func() {}
	}
	logger := log.G(ctx).WithField("id", id)
	limited, cancel := context.WithTimeout(ctx, quotaTimeout)
	defer cancel()
	again, err := share.Withdraw(limited)
	if err != nil {
		logger.WithError(err).Warn("isolate: CPU quotas of containers inside")
	}
	return func() {
		limited, cancel := context.WithTimeout(detached(ctx), quotaTimeout)
		defer cancel()
		if err := again(limited); err != nil {
			logger.WithError(err).Warn("isolate: CPU quotas of containers inside")
		}
	}
}

// quotaTimeout bounds how long the groups below a container's are walked through, of
// which it can make very many.
const quotaTimeout = 2 * time.Second
