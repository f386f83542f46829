// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// InfoFeatures is what `containerd-shim-isolate-v1 -info` reports: the features
// of the OCI runtime together with what isolate does itself, whatever the
// runtime can do. The kubelet takes a pod with hostUsers: false only where both
// the user namespace and idmapped mounts are among them (containerd,
// internal/cri/server/service.go, supportsCRIUserns).
//
// A runtime that has no features command is described by what every runtime of
// the specification version 1.0 must have. "rro" is not part of that: recursive
// read-only mounts are announced only for a runtime that names them.
func InfoFeatures(b Binary) *features.Features {
	out := features.Features{}
	if b.Features != nil {
		out = *b.Features
	} else {
		out.OCIVersionMin = "1.0.0"
		out.OCIVersionMax = b.SpecVersion
		out.MountOptions = slices.Clone(baseMountOptions)
		out.Annotations = map[string]string{}
	}

	var linux features.Linux
	if out.Linux != nil {
		linux = *out.Linux
	}
	// What every supported runtime does, and isolate asks of it; the order of
	// the names is the one that runc and crun print.
	linux.Namespaces = union(linux.Namespaces, "cgroup", "ipc", "mount", "network", "pid", "user", "uts")
	var extensions features.MountExtensions
	if linux.MountExtensions != nil {
		extensions = *linux.MountExtensions
	}
	enabled := true
	extensions.IDMap = &features.IDMap{Enabled: &enabled} // done by isolate, before the runtime
	linux.MountExtensions = &extensions
	out.Linux = &linux

	out.Annotations = maps.Clone(out.Annotations)
	return &out
}

// union returns the sorted names of both lists; list is not changed.
func union(list []string, names ...string) []string {
	all := append(slices.Clone(list), names...)
	slices.Sort(all)
	return slices.Compact(all)
}

// baseMountOptions are the file system independent options of mount(8) that the
// specification, version 1.0, requires of every runtime.
var baseMountOptions = []string{
	"async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec",
	"noatime", "nodev", "nodiratime", "noexec", "norelatime", "nostrictatime",
	"nosuid", "private", "rbind", "relatime", "remount", "ro", "rprivate",
	"rshared", "rslave", "runbindable", "rw", "shared", "slave", "strictatime",
	"suid", "sync", "unbindable",
}
