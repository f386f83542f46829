// SPDX-License-Identifier: Apache-2.0

package options

import (
	runcoptions "github.com/containerd/containerd/api/types/runc/options"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/runtime"
)

// build makes the options that containerd's runc packages get for a container.
// The binary is bin's absolute path, whatever was asked for and on which way;
// root and cgroup driver are the request's, else the configuration's (a request
// can switch systemd cgroups on and not off: its false looks like saying
// nothing). ioUID and ioGID own the container's pipes; they are the ids that
// the container's root has on the host.
func build(res result, cfg config.Config, bin runtime.Binary, ioUID, ioGID idmap.HostID) *runcoptions.Options {
	out := &runcoptions.Options{}
	if res.Runc != nil {
		out = kept(res.Runc)
	}
	out.BinaryName = bin.Path
	if out.GetRoot() == "" {
		out.Root = cfg.Runtime.Root
	}
	out.SystemdCgroup = out.GetSystemdCgroup() || cfg.Runtime.SystemdCgroup
	out.IoUid, out.IoGid = uint32(ioUID), uint32(ioGID)
	return out
}
