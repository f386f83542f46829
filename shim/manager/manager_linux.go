// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/api/types"
	runcmanager "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/pkg/protobuf/proto"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/options"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/shim/version"
)

// runtimeName is the runtime's name in containerd.
const runtimeName = "io.containerd.isolate.v1"

// maxOptions bounds the options read from stdin, in bytes; upstream's limit for
// the same input.
const maxOptions = 10 << 20

// manager is containerd's manager for runc with its own Stop and Info.
type manager struct {
	shim.Shim
}

// newManager returns the shim's short-lived side.
func newManager() shim.Shim { return manager{runcmanager.NewShimManager(runtimeName)} }

// Info answers `-info`: what the kubelet and `ctr plugins inspect-runtime` want
// to know of the runtime. The features belong to the OCI runtime that would
// be used, and what isolate does for it: without user namespaces and idmapped
// mounts among them, CRI rejects pods with hostUsers: false.
func (m manager) Info(ctx context.Context, stdin io.Reader) (*types.RuntimeInfo, error) {
	opts, err := readOptions(stdin)
	if err != nil {
		return nil, err
	}
	settings, bin, err := options.Resolve(ctx, config.Dir, opts)
	if err != nil {
		return nil, err
	}
	info := &types.RuntimeInfo{
		Name:    runtimeName,
		Version: &types.RuntimeVersion{Version: version.Version, Revision: version.Revision},
		Annotations: map[string]string{
			"io.containerd.isolate.runtime":         bin.Path,
			"io.containerd.isolate.runtime.version": bin.Version,
		},
	}
	if info.Options, err = typeurl.MarshalAnyToProto(settings.Runc); err != nil {
		return nil, fmt.Errorf("encode options: %w", err)
	}
	if info.Features, err = typeurl.MarshalAnyToProto(runtime.InfoFeatures(bin)); err != nil {
		return nil, fmt.Errorf("encode features: %w", err)
	}
	return info, nil
}

func readOptions(r io.Reader) (*anypb.Any, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxOptions))
	if err != nil {
		return nil, fmt.Errorf("read options: %w", err)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	var any anypb.Any
	if err := proto.Unmarshal(data, &any); err != nil {
		return nil, errors.Join(errors.New("runtime options on stdin are not a protobuf Any"), err)
	}
	return &any, nil
}
