// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/log"
)

// How long a shim stays that has no container. containerd asks for the first one as soon
// as the shim answers, and for the end when the last one is deleted. A shim of a pod gets
// its next container while it has the sandbox.
const (
	aloneAtFirst = 30 * time.Second
	aloneAtLast  = 3 * time.Second
)

// leaveIfAlone lets the shim end if it has no container after a while. Nobody else would
// end it: containerd forgets a shim if it is killed before it has asked for a container,
// and if its client leaves while it waits for Delete, it keeps a task that no client can
// delete any more, since the shim does not know it. When the shim has ended, containerd
// cleans up after it. A containerd that is connected is given any time for the first one.
func (s *Service) leaveIfAlone(after time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armAlone(after)
}

// armAlone is leaveIfAlone for a caller that has the lock: whoever takes the last container
// away must not let go of it before, or the shim ends because of an earlier one.
func (s *Service) armAlone(after time.Duration) {
	if s.leave == nil {
		return
	}
	if s.alone != nil {
		s.alone.Stop()
	}
	var timer *time.Timer
	timer = time.AfterFunc(after, func() {
		s.mu.Lock()
		alone := s.alone == timer && len(s.containers)+len(s.creations)+s.deletions == 0
		if alone && after == aloneAtFirst && s.connected() {
			s.armAlone(after)
			alone = false
		}
		s.mu.Unlock()
		if alone {
			s.leave(after)
		}
	})
	s.alone = timer
}

// deleting notes that a container is being deleted until the returned function is called.
func (s *Service) deleting() (over func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deletions++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.deletions--
		s.armAlone(aloneAtLast)
	}
}

// end ends the shim, unless upstream has a container.
func (s *Service) end(after time.Duration) {
	ctx := context.Background()
	log.G(ctx).Infof("isolate: the shim has had no container for %v, and ends", after)
	if _, err := s.TTRPCTaskService.Shutdown(ctx, &taskAPI.ShutdownRequest{}); err != nil {
		log.G(ctx).WithError(err).Warn("isolate: end of a shim without containers")
	}
}
