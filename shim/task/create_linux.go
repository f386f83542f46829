// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"fmt"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"

	"github.com/isolate-shim/isolate/idmap/rootfs"
	"github.com/isolate-shim/isolate/internal/linux/exhausted"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/ending"
	"github.com/isolate-shim/isolate/shim/lxcfs"
	"github.com/isolate-shim/isolate/shim/plan"
	"github.com/isolate-shim/isolate/spec"
)

// Create makes a container: everything isolate does happens here, around
// upstream's Create.
func (s *Service) Create(ctx context.Context, r *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
	ctx, c, err := s.begin(ctx, r)
	if err != nil {
		return nil, toGRPC(err)
	}
	defer s.over(c)
	go ending.Sweep(detached(ctx)) // this one may need what is left
	resp, err := c.create(ctx)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errAbandoned) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		return nil, toGRPC(exhausted.Explain(err))
	}
	return resp, nil
}

// create makes the container. Its steps read from top to bottom, and each has a file.
// What a step does is in the record before the step does it.
func (c *creation) create(ctx context.Context) (_ *taskAPI.CreateTaskResponse, retErr error) {
	c.stageEnd = time.Now()
	// Before anything that a container's ids let fail for some other reason.
	err := c.service.kernel.Host()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, spec.ErrRefused)
	}
	if c.namespace, err = namespaces.NamespaceRequired(ctx); err != nil {
		return nil, err
	}
	ctx = log.WithLogger(ctx, log.G(ctx).WithFields(log.Fields{"id": c.id, "namespace": c.namespace}))
	if c.doc, err = readBundle(c.request.Bundle); err != nil {
		return nil, err
	}
	c.source = rootfs.Parse(c.request.Rootfs, rootfsDir(c.request.Bundle, c.doc.Spec))
	if err := c.resolve(ctx); err != nil {
		return nil, err
	}
	c.probe = lxcfs.StartProbe(ctx, c.cfg.LXCFS) // beside the steps up to settle
	defer c.probe.Close()
	unlock, err := lockID(ctx, c.namespace, c.id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := endEarlier(ctx, c.namespace, c.id, c.request.Bundle); err != nil {
		return nil, err
	}
	if err := c.decide(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, c.undo(detached(ctx)))
		}
	}()
	defer c.letGo()
	if err := c.stage(ctx, "decide", c.lease, c.writeRecord); err != nil {
		return nil, err
	}
	if err := c.stage(ctx, "mount",
		c.makeUserns,
		c.startClocks, // beside the mounts
		c.mount,
		c.findNodes,
		c.setNetSysctls,
		c.joinClocks,
		c.editSpec,
	); err != nil {
		return nil, err
	}
	resp, err := c.run(ctx)
	if err != nil {
		return nil, err
	}
	c.end("runtime")
	if err := c.settle(ctx, int(resp.Pid)); err != nil {
		if c.init != nil { // else the runtime's word is not good enough to signal anybody
			c.discard(detached(ctx))
		}
		return nil, err
	}
	if err := c.service.enter(ctx, c.container); err != nil {
		c.discard(detached(ctx))
		return nil, err
	}
	c.watch(ctx)
	c.announce(ctx)
	return resp, nil
}

// stage takes the last steps of a stage.
func (c *creation) stage(ctx context.Context, name string, steps ...func(context.Context) error) error {
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	c.end(name)
	return nil
}

// resolve finds out what the client and the administrator ask for, and the runtime.
func (c *creation) resolve(ctx context.Context) (err error) {
	if c.settings, c.bin, err = c.service.resolve(ctx, config.Dir, c.request.Options); err != nil {
		return err
	}
	if c.cfg, err = c.settings.Config.WithAnnotations(c.doc.Spec.Annotations); err != nil {
		return fmt.Errorf("%w: %w", err, spec.ErrRefused)
	}
	c.settings.Runc.SystemdCgroup = c.settings.Runc.SystemdCgroup || spec.SystemdCgroup(c.doc.Spec)
	return nil
}

// decide plans what follows from the request and from whose namespaces it joins.
func (c *creation) decide(ctx context.Context) error {
	facts, err := c.facts(ctx)
	if err != nil {
		return err
	}
	c.plan, err = plan.New(c.asked(), facts)
	c.sandbox, c.ownPIDs = facts.Sandbox, plan.OwnPIDs(c.doc.Spec)
	return err
}

// asked is what the container is planned by.
func (c *creation) asked() plan.Request {
	return plan.Request{Spec: c.doc.Spec, Config: c.cfg, Runtime: c.bin, Restored: c.request.Checkpoint != ""}
}

// run has the runtime make the container.
func (c *creation) run(ctx context.Context) (*taskAPI.CreateTaskResponse, error) {
	req, err := c.upstreamRequest()
	if err != nil {
		return nil, err
	}
	if err := c.limits.lend(""); err != nil {
		return nil, err
	}
	if err := c.expect(); err != nil {
		return nil, err
	}
	resp, err := c.service.TTRPCTaskService.Create(ctx, req)
	if err != nil && c.refused != nil {
		return nil, c.refused
	}
	return resp, err
}

// announce logs the decisions, in one line for each container.
func (c *creation) announce(ctx context.Context) {
	fields := log.Fields{"mode": c.plan.Mode, "runtime": c.bin.Path, "lxcfs": c.attached.summary, "ms": c.stages}
	if c.snapshot != nil {
		fields["rootfs"] = "chown"
	}
	if uid, ok := c.plan.Mapping.RootUID(); ok {
		fields["uid"] = uid
	}
	log.G(ctx).WithFields(fields).Info("isolate: container created")
}
