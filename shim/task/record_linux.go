// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/process"

	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/stage"
	"github.com/isolate-shim/isolate/spec"
)

// writeRecord writes the record, before the first mount.
func (c *creation) writeRecord(context.Context) error {
	root := c.settings.Runc.GetRoot()
	if root == "" {
		root = process.RuncRoot
	}
	c.record = &record.Record{
		Version:   record.Version,
		Namespace: c.namespace,
		ID:        c.id,
		Bundle:    c.request.Bundle,
		Mode:      string(c.plan.Mode),
		Mapping:   c.plan.Mapping,
		Rootfs:    len(c.request.Rootfs) > 0 || c.mapsRootfs(),
		Runtime:   record.Runtime{Path: c.bin.Path, Version: c.bin.Version, Root: root},
		Cgroups:   c.cgroups,
		Premade:   c.premade,
	}
	if err := c.findHanded(); err != nil {
		c.record = nil
		return err
	}
	if c.held != nil && c.held.Size > 0 {
		c.record.Lease = &c.held.Span
	}
	if err := c.record.Save(); err != nil {
		c.record = nil
		return err
	}
	return nil
}

// findHanded finds out what a directory is that the caller names as rootfs.
func (c *creation) findHanded() error {
	if len(c.request.Rootfs) > 0 || !c.mapsRootfs() {
		return nil
	}
	c.record.Directory = true
	policy := chownPolicy(c.cfg.Rootfs)
	if policy == stage.ChownAlways {
		return nil
	}
	var err error
	c.handed, err = stage.FindHanded(rootfsDir(c.request.Bundle, c.doc.Spec))
	if errors.Is(err, spec.ErrRefused) && policy == stage.ChownFallback {
		return nil // its ids are moved on disk instead
	}
	if err != nil || c.handed == nil {
		return err
	}
	c.record.Handed = &record.Handed{
		Path: c.handed.Path, Source: record.NewSource(), Was: c.handed.Source, Dir: c.handed.Dir, Options: c.handed.Overlay.MountOptions(),
	}
	return nil
}
