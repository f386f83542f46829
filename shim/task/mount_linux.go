// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/isolate-shim/isolate/shim/plan"
	"github.com/isolate-shim/isolate/shim/runtime"
	"github.com/isolate-shim/isolate/shim/stage"
	"github.com/isolate-shim/isolate/spec"
)

// mount mounts the rootfs, stages the volumes, and makes what nesting needs.
func (c *creation) mount(ctx context.Context) error {
	dir, err := c.record.StageDir()
	if err != nil {
		return err
	}
	if err := c.openTo(filepath.Dir(dir)); err != nil {
		return err
	}
	st := stage.New(c.service.kernel, dir, c.doc.Spec.Linux.MountLabel)
	defer st.Close() //nolint:errcheck // user namespaces, only held
	if c.userns != nil {
		st.Lend(c.plan.Mapping, c.userns.File)
	}
	rootfs, err := c.mountRootfs(ctx, st)
	if err != nil {
		return err
	}
	if err := c.openTo(c.request.Bundle); err != nil {
		return err
	}
	if err := c.mountVolumes(ctx, st); err != nil {
		return err
	}
	if c.plan.Nesting = plan.Nesting(c.cfg, c.plan.Decision); c.plan.Nesting == nil {
		return nil
	}
	return c.nest(st, rootfs) //nolint:contextcheck // a look-up in a volume has a bound of its own
}

// mountVolumes stages the volumes, and what stands in for file systems of the kernel.
func (c *creation) mountVolumes(ctx context.Context, st *stage.Stage) error {
	volumes, err := spec.Volumes(c.doc.Spec, c.plan.Decision, c.plan.Mapping, c.request.Bundle)
	if err != nil {
		return err
	}
	if c.namespace == dockerNamespace {
		spec.ReadOnlyAsDocker(volumes)
	}
	paths := map[int]string{}
	for _, v := range volumes {
		path, warnings, err := st.Volume(ctx, v, c.cfg.Volumes.RequireIDMap)
		if err != nil {
			return err
		}
		c.warn(ctx, warnings...)
		paths[v.Index] = path
	}
	if c.bin.Name != runtime.Runc {
		if err := st.Lock(); err != nil {
			return err
		}
	}
	flags, err := st.Flags()
	if err != nil {
		return err
	}
	c.plan.Staged = map[int]spec.StagedMount{}
	for _, v := range volumes {
		path := paths[v.Index]
		c.plan.Staged[v.Index] = spec.StagedMount{Source: path, Flags: flags[path], Kernel: v.Kernel}
	}
	return nil
}

// dockerNamespace is containerd's namespace of dockerd (--containerd-namespace).
const dockerNamespace = "moby"

// openTo lets the container's root, and nobody else, pass through a directory. It is for
// the bundle, which containerd opens like that for clients that map ids themselves
// (core/runtime/v2/bundle_linux.go), and for the directory of the staged mounts, which
// crun 1.8 looks up from inside.
func (c *creation) openTo(dir string) error {
	gid, ok := c.plan.Mapping.RootGID()
	if !ok {
		return fmt.Errorf("the container's id mapping has no group 0: %w", spec.ErrRefused)
	}
	if err := c.service.kernel.Chown(dir, -1, int(gid)); err != nil {
		return fmt.Errorf("open directory to the container's root: %w", err)
	}
	if err := os.Chmod(dir, 0o710); err != nil {
		return fmt.Errorf("open directory to the container's root: %w", err)
	}
	return nil
}
