// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"io/fs"

	"github.com/containerd/log"

	"github.com/isolate-shim/isolate/internal/linux/cgroupfs"
	"github.com/isolate-shim/isolate/spec"
)

// findCgroups finds the directories of the container's cgroups, and which of the
// directories exist already. It finds none if the spec leaves the path to the runtime.
func (c *creation) findCgroups(ctx context.Context) error {
	if err := spec.CheckCgroupPath(c.doc.Spec); err != nil {
		return err
	}
	path := spec.CgroupPath(c.doc.Spec, c.settings.Runc.SystemdCgroup)
	if path == "" {
		return nil
	}
	var err error
	if c.cgroups, err = cgroupfs.Dirs(path); err != nil {
		return err
	}
	var existing []spec.ExistingCgroup
	for _, dir := range c.cgroups {
		populated, owners, err := cgroupfs.Look(ctx, dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		existing = append(existing, spec.ExistingCgroup{Dir: dir, Populated: populated, Owners: owners})
		c.premade = append(c.premade, dir)
	}
	return spec.CheckCgroups(existing)
}

// recordFound notes the container's groups if they became known only now, since the spec
// left the path to the runtime. Whether they existed before is not known.
func (c *container) recordFound() error {
	c.awaitDelegation()
	if len(c.cgroups) > 0 || len(c.found) == 0 {
		return nil
	}
	c.record.Cgroups, c.record.Premade = c.found, c.found
	return c.record.Save()
}

// groups are the directories of the container's groups.
func (c *container) groups() []string {
	if len(c.cgroups) > 0 {
		return c.cgroups
	}
	c.awaitDelegation()
	return c.found
}

// emptyCgroups removes the groups below the container's before its runtime is to,
// once its first process has ended.
func (c *container) emptyCgroups(ctx context.Context) {
	init := c.init
	if init == nil {
		return
	}
	if ended, err := init.Ended(0); err != nil || !ended {
		return // the runtime refuses
	}
	if err := c.record.EmptyCgroups(detached(ctx)); err != nil {
		log.G(ctx).WithError(err).WithField("id", c.id).Warn("isolate: cgroups below the container's")
	}
}
