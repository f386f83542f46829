// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/process"

	"github.com/isolate-shim/isolate/idmap/rootfs"
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
		Rootfs:    c.source.Kind != rootfs.Directory || c.mapsRootfs(),
		Runtime:   record.Runtime{Path: c.bin.Path, Version: c.bin.Version, Root: root},
		Cgroups:   c.cgroups,
		Premade:   c.premade,
	}
	if err := c.findPremounted(); err != nil {
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

// findPremounted finds out what a directory is that the caller names as rootfs.
func (c *creation) findPremounted() error {
	if c.source.Kind != rootfs.Directory || !c.mapsRootfs() {
		return nil
	}
	c.record.Directory = true
	policy := chownPolicy(c.cfg.Rootfs)
	if policy == stage.ChownAlways {
		return nil
	}
	premounted, err := c.source.Premounted()
	if errors.Is(err, spec.ErrRefused) && policy == stage.ChownFallback {
		return nil // its ids are moved on disk instead
	}
	if err != nil || premounted == nil {
		return err
	}
	c.premounted = premounted
	c.record.Premounted = (*record.Premounted)(premounted.Replacement())
	return nil
}
