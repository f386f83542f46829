// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/process"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/runc"
	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/spec"
)

// named is the record of a container as far as its names and the runtime's options in
// its bundle tell: enough to see whether the runtime still has state for it.
func named(ctx context.Context, namespace, id, bundle string) *record.Record {
	r := &record.Record{
		Version: record.Version, Namespace: namespace, ID: id, Bundle: bundle, Rootfs: true,
		Runtime: record.Runtime{Path: "runc", Root: process.RuncRoot},
	}
	opts, err := runc.ReadOptions(bundle)
	warn(ctx, id, err)
	if opts.GetRoot() != "" {
		r.Runtime.Root = opts.GetRoot()
	}
	name, err := runc.ReadRuntime(bundle)
	warn(ctx, id, err)
	if name != "" {
		r.Runtime.Path = name
	}
	return r
}

// salvage makes a record for a container that has none that can be read: what its
// names and its bundle tell. What it does not know is left behind: a mount of the
// caller's that was replaced stays so.
func salvage(ctx context.Context, r *record.Record) *record.Record {
	// Where a rootfs is mounted that the caller named as a directory.
	directory := *r
	directory.Directory = true
	if _, err := os.Lstat(directory.RootfsDir()); err == nil {
		r = &directory
	}
	data, err := os.ReadFile(filepath.Join(r.Bundle, "config.json"))
	var s specs.Spec
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	warn(ctx, r.ID, err)
	if err != nil || s.Linux == nil {
		return r
	}
	r.Mapping, err = idmap.FromSpec(s.Linux.UIDMappings, s.Linux.GIDMappings)
	warn(ctx, r.ID, err)
	opts, _ := runc.ReadOptions(r.Bundle) // named has warned
	if path := spec.CgroupPath(&s, opts.GetSystemdCgroup()); path != "" {
		r.Cgroups, err = cgroupfs.Dirs(path)
		warn(ctx, r.ID, err)
	}
	return r
}

func warn(ctx context.Context, id string, err error) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.G(ctx).WithError(err).Warnf("isolate: bundle of container %q", id)
	}
}
