// SPDX-License-Identifier: Apache-2.0

package options

import (
	"context"
	"fmt"
	"os"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/runtime"
)

// Settings is what holds for one request: the host's configuration with the
// request's options layered over it.
type Settings struct {
	// Config is effective, except for annotations of the container.
	Config config.Config
	// Runc are the effective options of runc's type, except for the owner of
	// the pipes, which is the request's until a container has its ids.
	Runc *runcoptions.Options
}

// Resolve is the way from a request's options to a runtime: decode them, read
// the host's configuration in dir, layer the one over the other, find the
// runtime on this process's PATH.
func Resolve(ctx context.Context, dir string, in *anypb.Any) (Settings, runtime.Binary, error) {
	return resolve(ctx, runtime.Finder{CacheDir: runtime.CacheDir}, dir, in)
}

func resolve(ctx context.Context, finder runtime.Finder, dir string, in *anypb.Any) (Settings, runtime.Binary, error) {
	res, err := normalise(in)
	if err != nil {
		return Settings{}, runtime.Binary{}, err
	}
	cfg, _, err := config.Load(dir)
	if err != nil {
		return Settings{}, runtime.Binary{}, err
	}
	if len(res.ConfigBody) > 0 {
		if cfg, err = cfg.Overlay(res.ConfigName, res.ConfigBody); err != nil {
			return Settings{}, runtime.Binary{}, err
		}
	}
	bin, err := finder.Find(ctx, res.Runc.GetBinaryName(), cfg.Runtime.Binary, os.Getenv("PATH"))
	if err != nil {
		return Settings{}, runtime.Binary{}, err
	}
	runc := build(res, cfg, bin, idmap.HostID(res.Runc.GetIoUid()), idmap.HostID(res.Runc.GetIoGid()))
	return Settings{Config: cfg, Runc: runc}, bin, nil
}

// Any returns the options for a container whose root has these ids on the host,
// as upstream's Create takes them.
func (s Settings) Any(bin runtime.Binary, ioUID, ioGID idmap.HostID) (*anypb.Any, error) {
	o := build(result{Runc: s.Runc}, s.Config, bin, ioUID, ioGID)
	value, err := proto.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode runtime options: %w", err)
	}
	return &anypb.Any{TypeUrl: runcName, Value: value}, nil
}
