// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"

	"github.com/isolate-shim/isolate/idmap/pool"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/spec"
)

// adopt holds the ids of the mapping that the caller made, so that no container of
// another user namespace gets one of them. userns is the path of the one to join.
func (c *container) adopt(ctx context.Context, owner pool.Owner, cfg config.Config, userns string) error {
	p, err := openPool(cfg)
	if err != nil {
		return err
	}
	c.held, err = p.Adopt(ctx, c.plan.Mapping, owner, userns, cfg.IDs.Adopt == config.AdoptShared)
	if errors.Is(err, pool.ErrOverlap) {
		return fmt.Errorf("%w: %w", err, spec.ErrRefused)
	}
	return err
}
