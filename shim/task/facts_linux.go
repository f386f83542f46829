// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/internal/linux/ns"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/spec"
)

// facts looks up what spec.Decide must know: whose the namespaces are that the
// spec joins, and whether the container belongs to one of ours.
func (c *creation) facts(ctx context.Context) (spec.Facts, error) {
	s := c.doc.Spec
	f := spec.Facts{Joined: map[specs.LinuxNamespaceType]spec.Owner{}, RootfsMapped: c.source.Adopted()}
	host, err := ns.Own("user")
	if err != nil {
		return f, fmt.Errorf("own user namespace: %w", err)
	}
	o := owners{service: c.service, host: host, pod: spec.PodOf(c.namespace, c.id, s.Annotations)}
	for _, n := range s.Linux.Namespaces {
		if n.Path == "" || n.Type == specs.UserNamespace {
			continue
		}
		err := withUserns(n.Path, func(owner ns.ID) { f.Joined[n.Type] = o.classify(ctx, owner) })
		if err != nil {
			return f, fmt.Errorf("%s namespace: %w", n.Type, err)
		}
	}
	if f.Sandbox = o.sandbox; f.Sandbox == nil {
		return f, nil
	}
	f.Sandbox.Pod = f.Sandbox.ID == o.pod.Sandbox
	if f.Joined[specs.PIDNamespace] == spec.OwnerOther {
		if f.Peer, err = c.service.peer(spec.Namespace(s, specs.PIDNamespace).Path, f.Sandbox); err != nil {
			return f, err
		}
	}
	if n := spec.Namespace(s, specs.UserNamespace); n != nil && n.Path != "" {
		if f.Joined[n.Type], err = sandboxes(n.Path, f.Sandbox); err != nil {
			return f, err
		}
	}
	return f, nil
}

// owners tells whose user namespaces are.
type owners struct {
	service *Service
	host    ns.ID
	pod     spec.Pod
	// sandbox is the first container of ours that turned out to have one; nil for none.
	sandbox *spec.Sandbox
}

// classify says whose a user namespace is.
func (o *owners) classify(ctx context.Context, userns ns.ID) spec.Owner {
	if userns == o.host {
		return spec.OwnerHost
	}
	if o.sandbox == nil {
		o.sandbox = o.service.sandboxOf(ctx, userns, o.pod)
	}
	if o.sandbox != nil && isNamespace(o.sandbox.Userns, userns) {
		return spec.OwnerSandbox
	}
	return spec.OwnerOther
}

// peer finds the container of a sandbox to whose user namespace a pid namespace
// belongs.
func (s *Service) peer(path string, sandbox *spec.Sandbox) (found *spec.Sandbox, _ error) {
	err := withUserns(path, func(owner ns.ID) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, c := range s.containers {
			if c.sandbox == nil || c.sandbox.ID != sandbox.ID {
				continue
			}
			if out := c.asSandbox(); out != nil && isNamespace(out.Userns, owner) {
				found = out
				return
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("pid namespace: %w", err)
	}
	return found, nil
}

// sandboxes says whether a user namespace that the spec joins is the sandbox's.
func sandboxes(path string, sandbox *spec.Sandbox) (spec.Owner, error) {
	id, err := ns.At(path)
	if err != nil {
		return "", fmt.Errorf("user namespace: %w", err)
	}
	if isNamespace(sandbox.Userns, id) {
		return spec.OwnerSandbox, nil
	}
	return spec.OwnerOther, nil
}

// withUserns names the user namespace that a namespace belongs to, which lives until
// fn returns.
func withUserns(path string, fn func(owner ns.ID)) error {
	joined, err := os.Open(path)
	if err != nil {
		return err
	}
	defer joined.Close()
	owner, err := ns.Userns(joined)
	if err != nil {
		return err
	}
	defer owner.Close()
	id, err := ns.Of(owner)
	if err == nil {
		fn(id)
	}
	return err
}

// sandboxOf finds the container whose user namespace it is, in this shim or any
// other, if the pod admits it.
func (s *Service) sandboxOf(ctx context.Context, userns ns.ID, pod spec.Pod) *spec.Sandbox {
	if c := s.container(pod.Sandbox); c != nil && pod.Admits(c.record.Namespace, c.id) {
		if out := c.asSandbox(); out != nil && isNamespace(out.Userns, userns) {
			return out
		}
	}
	records, err := record.List()
	if err != nil {
		log.G(ctx).WithError(err).Warn("isolate: records of other containers")
	}
	for _, r := range records {
		if r.Init == nil || !pod.Admits(r.Namespace, r.ID) || !isNamespace(fmt.Sprintf("/proc/%d/ns/user", r.Init.PID), userns) {
			continue
		}
		mode := spec.ModeAdopt
		if r.Lease != nil {
			mode = spec.ModeOwn
		}
		return sandbox(r.ID, mode, r)
	}
	return nil
}

// isNamespace is false as well for a namespace that cannot be looked at: its process
// is gone.
func isNamespace(path string, id ns.ID) bool {
	there, err := ns.At(path)
	return err == nil && there == id
}
