// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/mount"
	"github.com/isolate-shim/isolate/shim/cgroup"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/heal"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/plan"
	"github.com/isolate-shim/isolate/shim/stage"
	"github.com/isolate-shim/isolate/shim/visit"
	"github.com/isolate-shim/isolate/spec"
)

// settle finishes a container between the runtime's create and start: the
// container has its namespaces and its own copies of the mounts, but none of
// its program runs yet.
//
// A restored container (r.Checkpoint) has no process before start; pid is 0 and
// there is nothing to settle but the staging area, which must stay until then.
func (c *creation) settle(ctx context.Context, pid int) error {
	if pid <= 0 {
		c.attached.summary = "none (restored)"
		return nil
	}
	if c.init == nil || c.init.PID() != pid {
		return fmt.Errorf("container %q: nothing proves that process %d, which its runtime has reported, is the container's", c.id, pid)
	}
	if err := c.limits.set(pid, ""); err != nil {
		return err
	}
	if c.held != nil {
		if err := c.held.Bound(pid); err != nil {
			return err
		}
	}
	if err := c.attachFiles(ctx); err != nil {
		return err
	}
	if c.plan.Nesting != nil {
		c.delegate(detached(ctx))
		if err := c.attachStandIns(); err != nil {
			return err
		}
	}
	if c.sealed {
		if err := stage.Seal(c.record.RootfsDir()); err != nil {
			return err
		}
	}
	if err := c.record.DropStage(); err != nil {
		return err
	}
	c.awaitVisits(ctx)
	c.awaitPrograms(ctx)
	c.end("settle")
	c.record.Stages = c.stages
	return c.record.Save()
}

// awaitVisits looks out for what the host's programs do in a rootfs where they can.
func (c *creation) awaitVisits(ctx context.Context) {
	ids, ok := c.plan.Mapping.Contiguous()
	if _, can := c.plan.Mapping.WithHost(); !ok || !can || c.premounted == nil || c.upper == "" || c.snapshot != nil {
		return
	}
	var err error
	r := visit.Rootfs{Path: c.record.RootfsDir(), Upper: c.upper, IDs: ids, Store: snapshots}
	if c.visits, err = visit.Start(detached(ctx), r); err != nil {
		c.warn(ctx, fmt.Sprintf("what is copied into the container shows as nobody's until the container ends: %v", err))
	}
}

// attachedFiles are the files of lxcfs that a container got.
type attachedFiles struct {
	summary string   // how many, for the log
	names   []string // of those, and of those that it cannot have
	origin  lxcfs.Origin
}

// attachFiles puts the files of lxcfs over the container's /proc and /sys.
//
// They are grafted as detached mounts instead of being bound by the spec: the
// runtime never looks up a path on FUSE, so a server that dies or hangs now
// cannot hold it up; runc refuses some of the files in a spec; and the same
// graft repairs a running container.
func (c *creation) attachFiles(ctx context.Context) error {
	served, err := c.probe.Result()
	if err != nil {
		if c.probe.Required() {
			return fmt.Errorf("lxcfs.mode is \"require\": %w", err)
		}
		c.attached.summary = "none"
		if !errors.Is(err, lxcfs.ErrOff) {
			c.warn(ctx, fmt.Sprintf("/proc and /sys show the host's resources: %v", err))
		}
		return nil
	}
	if c.notifier != nil {
		// Before they are attached, and used up by that.
		likely := len(c.plan.Nesting.Stores) > 0 || c.plan.Nesting.Systemd
		if err := c.notifier.Prepare(c.forContainer(served.Files), likely); err != nil { //nolint:contextcheck // it outlives the request
			log.G(ctx).WithError(err).Debug("isolate: the first inner container has to wait for its views")
		}
	}
	c.attached.origin = served.Origin
	grafted, files := 0, c.forContainer(served.Files)
	err = c.init.Inside(func(in *mount.Inside) error {
		for _, f := range files {
			err := in.Attach(f.Mount, f.Name, mount.Target{Magic: []int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC}})
			switch {
			case err == nil:
				grafted++
				c.attached.names = append(c.attached.names, f.Name)
			case errors.Is(err, os.ErrNotExist): // the kernel has no such file
				log.G(ctx).WithError(err).Debug("isolate: lxcfs file without a counterpart")
				c.attached.names = append(c.attached.names, f.Name)
			default:
				return fmt.Errorf("graft %s: %w", f.Name, err)
			}
		}
		return nil
	})
	c.attached.summary = fmt.Sprintf("%d/%d", grafted, len(files))
	if err != nil {
		if c.probe.Required() {
			return fmt.Errorf("lxcfs.mode is \"require\": %w", err)
		}
		c.warn(ctx, fmt.Sprintf("/proc and /sys show the host's resources in part: %v", err))
	}
	return nil
}

// watch keeps the files of lxcfs in order while the container runs.
func (c *creation) watch(ctx context.Context) {
	if c.init == nil || c.cfg.LXCFS.Mode == config.LXCFSOff {
		return
	}
	h := heal.Container{
		ID: c.id, Init: c.init, Cgroups: c.cgroups, LXCFS: c.cfg.LXCFS,
		Origin: c.attached.origin, Files: c.attached.names, Withheld: plan.Withheld(&c.plan),
	}
	if c.notifier != nil {
		h.Refresh = c.notifier.Refresh
	}
	if err := c.service.healer.Add(detached(ctx), h); err != nil {
		log.G(ctx).WithError(err).Warn("isolate: if lxcfs dies, /proc and /sys of the container show errors")
	}
}

// delegate gives the container its own cgroups, while containerd goes from
// create to start: moving a process between cgroups of version 2 can wait tens
// of ms for the kernel (cgroup_threadgroup_rwsem). Without its cgroups the
// container runs, but nothing inside can make sub-groups.
func (c *creation) delegate(ctx context.Context) {
	owner, _ := c.plan.Mapping.Root()
	c.delegated = make(chan struct{})
	go func() {
		defer close(c.delegated)
		report, err := cgroup.Delegate(c.init, owner, cgroup.Options{
			Leaf: !c.plan.Nesting.Systemd, Devices: spec.NodeRules(c.plan.Nodes),
			MaxDescendants: c.cfg.Cgroup.MaxDescendants, MaxDepth: c.cfg.Cgroup.MaxDepth,
		})
		if err != nil {
			log.G(ctx).Warnf("isolate: the container's cgroups were not handed over in full, so programs inside may fail to make some: %v", err)
		}
		log.G(ctx).WithField("cgroups", report.String()).Debug("isolate: delegated")
		c.found = report.Delegated
	}()
}

// awaitDelegation returns when delegate has done its work.
func (c *container) awaitDelegation() {
	if c.delegated != nil {
		<-c.delegated
	}
}

// attachStandIns grafts the stand-ins over settings. runc refuses them in a spec.
func (c *creation) attachStandIns() error {
	if len(c.standIns) == 0 {
		return nil
	}
	defer c.closeStandIns()
	return c.init.Inside(func(in *mount.Inside) error {
		for _, f := range c.standIns {
			err := in.Attach(f.Mount, f.Name, mount.Target{Magic: []int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC}})
			// A setting of the network namespace may not exist in this one.
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("stand-in for /%s: %w", f.Name, err)
			}
		}
		return nil
	})
}

func (c *creation) closeStandIns() {
	for _, f := range c.standIns {
		f.Mount.Close()
	}
	c.standIns = nil
}
