// SPDX-License-Identifier: Apache-2.0

package options

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isolate-shim/isolate/shim/config"
)

// The names of the two types. They arrive bare from typeurl, and with a prefix
// such as types.containerd.io/ or type.googleapis.com/ from others.
const (
	runcName    = "containerd.runc.v1.Options"
	runtimeName = "runtimeoptions.v1.Options"
)

// bodyName stands for a configuration without a file in error messages and
// origins.
const bodyName = "runtime options"

// errUnknown is returned, wrapped, for options of a type or form that isolate
// does not understand.
var errUnknown = errors.New("runtime options are not understood")

// result is what a request's options hold.
type result struct {
	// Runc has the fields of runc's options that were set. It is never nil,
	// and shares no memory with the request.
	Runc *runcoptions.Options
	// ConfigName names the configuration that the request brings along: a
	// path, or a fixed name; "" if there is none.
	ConfigName string
	// ConfigBody is its text, for [config.Config.Overlay].
	ConfigBody []byte
}

// normalise decodes the options of a request. Nil and empty ones are the zero
// result. A configuration file that the options name is read here, so that a
// file that is missing is reported before anything has begun.
func normalise(in *anypb.Any) (result, error) {
	if in == nil || in.GetTypeUrl() == "" && len(in.GetValue()) == 0 {
		return result{Runc: &runcoptions.Options{}}, nil
	}
	url := in.GetTypeUrl()
	switch url[strings.LastIndexByte(url, '/')+1:] {
	case runcName:
		return fromRunc(in)
	case runtimeName:
		return fromRuntime(in)
	case createName:
		return fromCreate(in)
	}
	return result{}, fmt.Errorf("%w: type %q; send %s, or %s with a configuration of isolate", errUnknown, url, runcName, runtimeName)
}

func fromRunc(in *anypb.Any) (result, error) {
	var sent runcoptions.Options
	if err := proto.Unmarshal(in.GetValue(), &sent); err != nil {
		return result{}, fmt.Errorf("%w: decode %q: %w", errUnknown, in.GetTypeUrl(), err)
	}
	return result{Runc: kept(&sent)}, nil
}

// kept copies the fields that this version knows. Unknown ones of a newer client
// are dropped: upstream's code, which would receive them, is of this version.
func kept(o *runcoptions.Options) *runcoptions.Options {
	return &runcoptions.Options{
		NoPivotRoot:    o.GetNoPivotRoot(),
		NoNewKeyring:   o.GetNoNewKeyring(),
		ShimCgroup:     o.GetShimCgroup(),
		IoUid:          o.GetIoUid(),
		IoGid:          o.GetIoGid(),
		BinaryName:     o.GetBinaryName(),
		Root:           o.GetRoot(),
		SystemdCgroup:  o.GetSystemdCgroup(),
		CriuImagePath:  o.GetCriuImagePath(),
		CriuWorkPath:   o.GetCriuWorkPath(),
		TaskApiAddress: o.GetTaskApiAddress(), //nolint:staticcheck // a client that still sends it is to find it
		TaskApiVersion: o.GetTaskApiVersion(), //nolint:staticcheck // as above
	}
}

func fromRuntime(in *anypb.Any) (result, error) {
	var sent runtimeoptions.Options
	if err := proto.Unmarshal(in.GetValue(), &sent); err != nil {
		return result{}, fmt.Errorf("%w: decode %q: %w", errUnknown, in.GetTypeUrl(), err)
	}
	out := result{Runc: &runcoptions.Options{}}
	// As containerd has it: the body counts if there is no path.
	switch path := sent.GetConfigPath(); {
	case path != "":
		if !filepath.IsAbs(path) {
			return result{}, fmt.Errorf("%w: ConfigPath %q is not an absolute path", errUnknown, path)
		}
		body, err := config.ReadFile(path)
		if err != nil {
			return result{}, fmt.Errorf("runtime options: ConfigPath: %w", err)
		}
		out.ConfigName, out.ConfigBody = path, body
	case len(sent.GetConfigBody()) > 0:
		out.ConfigName, out.ConfigBody = bodyName, sent.GetConfigBody()
	default:
		return out, nil
	}
	if err := readTask(out.ConfigName, out.ConfigBody, out.Runc); err != nil {
		return result{}, err
	}
	return out, nil
}
