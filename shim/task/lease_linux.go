// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/pool"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/stage"
	"github.com/isolate-shim/isolate/spec"
)

// lease settles whose ids the container has, and takes hold of its range: of the
// one that its files have on disk, if they do and it is free.
func (c *creation) lease(ctx context.Context) error {
	s, rootfs := c.doc.Spec, rootfsDir(c.request.Bundle, c.doc.Spec)
	if err := stage.Reachable(ctx, c.request.Rootfs, rootfs); err != nil {
		return err
	}
	preferred := stage.Preferred(snapshots, c.request.Rootfs, rootfs)
	if err := c.findCgroups(ctx); err != nil {
		return err
	}
	owner := pool.Owner{Namespace: c.namespace, ID: c.id, Cgroups: c.cgroups}
	switch c.plan.Mode {
	case spec.ModeAdopt:
		m, err := idmap.FromSpec(s.Linux.UIDMappings, s.Linux.GIDMappings)
		if err != nil {
			return fmt.Errorf("id mapping of the spec: %w: %w", err, spec.ErrRefused)
		}
		if err := pool.CheckHost(m, accounts); err != nil {
			return fmt.Errorf("%w: %w", err, spec.ErrRefused)
		}
		c.plan.Mapping = m
		return c.adopt(ctx, owner, spec.Namespace(s, specs.UserNamespace).Path)
	case spec.ModeJoin:
		c.plan.Mapping = c.sandbox.Mapping
		if !c.plan.Apart && !c.plan.Peer {
			c.plan.Userns = c.sandbox.Userns
		}
		if c.sandbox.Mode != spec.ModeOwn {
			return c.adopt(ctx, owner, c.sandbox.Userns)
		}
		p, err := openPool(c.cfg)
		if err != nil {
			return err
		}
		c.held, err = p.Share(ctx, c.plan.Mapping, owner)
		return err
	case spec.ModeOwn:
		p, err := openPool(c.cfg)
		if err != nil {
			return err
		}
		c.held, err = p.AcquirePreferred(ctx, owner, c.cfg.IDs.Size, preferred)
		if err != nil {
			return err
		}
		c.plan.Mapping = c.held.Mapping()
	}
	return nil
}

// adopt holds the ids of the mapping that the caller made, so that no container of
// another user namespace gets one of them. userns is the path of the one to join.
func (c *creation) adopt(ctx context.Context, owner pool.Owner, userns string) error {
	p, err := openPool(c.cfg)
	if err != nil {
		return err
	}
	c.held, err = p.Adopt(ctx, c.plan.Mapping, owner, userns, c.cfg.IDs.Adopt == config.AdoptShared)
	if errors.Is(err, pool.ErrOverlap) {
		return fmt.Errorf("%w: %w", err, spec.ErrRefused)
	}
	return err
}

func openPool(cfg config.Config) (*pool.Pool, error) {
	ids, err := pool.Resolve(cfg.IDs.Spans(), accounts)
	if err != nil {
		return nil, err
	}
	for _, w := range ids.Warnings {
		log.L.Warn("isolate: " + w) // of the host, not of the container
	}
	return pool.Open(filepath.Join(record.Root, ".ids"), ids.Spans)
}

// accounts are the files that say which ids the host has given away.
var accounts = pool.FilesIn("/etc")
