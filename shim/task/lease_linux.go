// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/log"

	"github.com/isolate-shim/isolate/idmap/pool"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/plan"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/shim/stage"
	"github.com/isolate-shim/isolate/spec"
)

// lease takes hold of the container's host ids. A container that gets a range of its own
// gets the range that its files have on disk, if they have one and it is free. Ids that
// the caller has mapped are held so that no container of another user namespace gets one
// of them.
func (c *creation) lease(ctx context.Context) error {
	if err := stage.Reachable(ctx, c.source); err != nil {
		return err
	}
	preferred := stage.Preferred(snapshots, c.source)
	if err := c.findCgroups(ctx); err != nil {
		return err
	}
	owner := pool.Owner{Namespace: c.namespace, ID: c.id, Cgroups: c.cgroups}
	if c.plan.Mode == spec.ModeAdopt {
		if err := pool.CheckHost(c.plan.Mapping, accounts); err != nil {
			return fmt.Errorf("%w: %w", err, spec.ErrRefused)
		}
	}
	p, err := openPool(c.cfg)
	if err != nil {
		return err
	}
	switch from, userns := plan.IDsOf(c.doc.Spec, c.plan.Mode, c.sandbox); from {
	case plan.Adopted:
		c.held, err = p.Adopt(ctx, c.plan.Mapping, owner, userns, c.cfg.IDs.Adopt == config.AdoptShared)
		if errors.Is(err, pool.ErrOverlap) {
			return fmt.Errorf("%w: %w", err, spec.ErrRefused)
		}
	case plan.Shared:
		c.held, err = p.Share(ctx, c.plan.Mapping, owner)
	case plan.Acquired:
		if c.held, err = p.AcquirePreferred(ctx, owner, c.cfg.IDs.Size, preferred); err == nil {
			c.plan.Mapping = c.held.Mapping()
		}
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
	return pool.Open(record.IDs(), ids.Spans)
}

// accounts are the files that say which ids the host has given away.
var accounts = pool.FilesIn("/etc")
