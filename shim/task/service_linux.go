// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	runctask "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	runc "github.com/containerd/go-runc"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isolate-shim/isolate/shim/heal"
	"github.com/isolate-shim/isolate/shim/options"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/shim/stage"
	"github.com/isolate-shim/isolate/spec"
)

func init() {
	// The first to be initialised, and by then there is nearly enough for a first run.
	registry.Register(&plugin.Registration{
		Type: plugins.InternalPlugin,
		ID:   "isolate-memory",
		InitFn: func(*plugin.InitContext) (any, error) {
			debug.SetGCPercent(gcPercent)
			return struct{}{}, nil
		},
	})
	// The id of upstream's plugin, which must not be linked in beside it.
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   newService,
	})
}

func newService(ic *plugin.InitContext) (any, error) {
	p, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	publisher, ok := p.(shim.Publisher)
	if !ok {
		return nil, fmt.Errorf("event publisher is a %T", p)
	}
	p, err = ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	sd, ok := p.(shutdown.Service)
	if !ok {
		return nil, fmt.Errorf("shutdown service is a %T", p)
	}
	sd.RegisterCallback(removeSockets(apiSocket, debugSocket))
	connected := hasClient(socketPaths(apiSocket)...)
	upstream, err := runctask.NewTaskService(ic.Context, publisher, sd)
	if err != nil {
		return nil, err
	}
	runc.Monitor = ownSessions{runc.Monitor} // upstream has just set it
	s := serviceOver(upstream)
	sd.RegisterCallback(s.undoAll)
	runc.Monitor = monitor{ProcessMonitor: runc.Monitor, reported: s.reported}
	s.leave, s.connected = s.end, connected
	s.leaveIfAlone(aloneAtFirst)
	return s, nil
}

func serviceOver(upstream taskAPI.TTRPCTaskService) *Service {
	s := &Service{
		containers: map[string]*container{}, creations: map[string]*creation{},
		kernel: stage.Linux, resolve: options.Resolve,
	}
	s.TTRPCTaskService = newBounded(upstream, s.firstProcess)
	return s
}

// gcPercent lets a Create pass without a run of the garbage collector. Upstream's 40 %
// makes it run four times, which is half of what isolate adds to its CPU time. The
// difference is given back within 30 s, when upstream frees what is not used.
const gcPercent = 200

// Service is the task service of one shim: of a container, or of a pod.
type Service struct {
	taskAPI.TTRPCTaskService

	mu         sync.Mutex
	containers map[string]*container // by id
	creations  map[string]*creation  // that go on, by id
	deletions  int                   // of containers, that go on

	alone     *time.Timer               // until the shim ends if it has no container
	leave     func(after time.Duration) // ends it; nil for never
	connected func() bool               // whether somebody can ask for a container

	healer heal.Healer // of their files of lxcfs

	// What a creation asks of the host; tests answer themselves.
	kernel  stage.Kernel
	resolve func(ctx context.Context, dir string, in *anypb.Any) (options.Settings, runtime.Binary, error)
}

// RegisterTTRPC serves the task API in today's version, and in the version of containerd
// before 2.3.
func (s *Service) RegisterTTRPC(server *ttrpc.Server) error {
	taskAPI.RegisterTTRPCTaskService(server, s)
	registerV2(server, s)
	return nil
}

func (s *Service) container(id string) *container {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.containers[id]
}

// toGRPC is the edge: errors of ours get their code, upstream's have one.
func toGRPC(err error) error {
	if errors.Is(err, spec.ErrRefused) {
		return errgrpc.ToGRPCf(errdefs.ErrInvalidArgument, "%v", err)
	}
	return errgrpc.ToGRPC(err)
}

// detached is a context for undoing: it must not end with the request.
func detached(ctx context.Context) context.Context { return context.WithoutCancel(ctx) }
