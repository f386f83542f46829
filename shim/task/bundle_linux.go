// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"github.com/isolate-shim/isolate/internal/linux/atomicfile"
	"github.com/isolate-shim/isolate/spec"
)

// readBundle reads the spec of a bundle.
func readBundle(bundle string) (*spec.Document, error) {
	path := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	doc, err := spec.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return doc, nil
}

// rootfsDir is the rootfs that a spec names.
func rootfsDir(bundle string, s *specs.Spec) string {
	if filepath.IsAbs(s.Root.Path) {
		return s.Root.Path
	}
	return filepath.Join(bundle, s.Root.Path)
}

// editSpec applies the plan to the spec and replaces config.json in one step:
// upstream reads it again later.
func (c *creation) editSpec(ctx context.Context) error {
	s := c.doc.Spec
	warnings, err := spec.Apply(s, &c.plan)
	c.warn(ctx, append(c.plan.Warnings, warnings...)...)
	if err != nil {
		return err
	}
	if c.limits, err = c.findLimits(); err != nil {
		return err
	}
	if c.limits != nil {
		c.limits.want("", s.Process.Rlimits)
		s.Process.Rlimits = nil
	}
	c.startNotifier(ctx)
	data, err := c.doc.JSON()
	if err != nil {
		return err
	}
	return c.writeSpec(data)
}

// writeSpec replaces config.json. The container's root may read it, as it could what
// containerd wrote: hooks that run as that root find the rootfs by it, among them
// those that NVIDIA's devices come with (CDI).
func (c *creation) writeSpec(data []byte) error {
	gid, _ := c.plan.Mapping.RootGID() // there is one: see openTo
	return atomicfile.Write(filepath.Join(c.request.Bundle, "config.json"), data, 0o640, func(f *os.File) error { return c.service.kernel.Chown(f.Name(), -1, int(gid)) })
}

// upstreamRequest is the caller's request as upstream is to see it: with options of
// runc's type only (it asserts the type unchecked), and without the rootfs that
// is mounted already.
func (c *creation) upstreamRequest() (*taskAPI.CreateTaskRequest, error) {
	out := proto.CloneOf(c.request)
	owner, ok := c.plan.Mapping.Root()
	if !ok {
		return nil, fmt.Errorf("the container's id mapping has no root: %w", spec.ErrRefused)
	}
	var err error
	if out.Options, err = c.settings.Any(c.bin, owner.UID, owner.GID); err != nil {
		return nil, err
	}
	if c.record.Rootfs {
		out.Rootfs = nil
	}
	return out, nil
}
