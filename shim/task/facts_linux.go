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
func (s *Service) facts(ctx context.Context, sp *specs.Spec, pod spec.Pod, rootfsMapped bool) (spec.Facts, error) {
	f := spec.Facts{Joined: map[specs.LinuxNamespaceType]spec.Owner{}, RootfsMapped: rootfsMapped}
	host, err := ns.Own("user")
	if err != nil {
		return f, fmt.Errorf("own user namespace: %w", err)
	}
	for _, n := range sp.Linux.Namespaces {
		if n.Path == "" || n.Type == specs.UserNamespace {
			continue
		}
		err := withUserns(n.Path, func(owner ns.ID) {
			f.Joined[n.Type] = s.classify(ctx, owner, host, pod, &f.Sandbox)
		})
		if err != nil {
			return f, fmt.Errorf("%s namespace: %w", n.Type, err)
		}
	}
	if f.Sandbox == nil {
		return f, nil
	}
	f.Sandbox.Pod = f.Sandbox.ID == pod.Sandbox
	if f.Joined[specs.PIDNamespace] == spec.OwnerOther {
		if f.Peer, err = s.peer(spec.Namespace(sp, specs.PIDNamespace).Path, f.Sandbox); err != nil {
			return f, err
		}
	}
	if n := spec.Namespace(sp, specs.UserNamespace); n != nil && n.Path != "" {
		if f.Joined[n.Type], err = sandboxes(n.Path, f.Sandbox); err != nil {
			return f, err
		}
	}
	return f, nil
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

// classify says whose a user namespace is. One of a container of ours becomes
// the sandbox to join, if there is none yet.
func (s *Service) classify(ctx context.Context, owner, host ns.ID, pod spec.Pod, joined **spec.Sandbox) spec.Owner {
	if owner == host {
		return spec.OwnerHost
	}
	if *joined == nil {
		*joined = s.sandboxOf(ctx, owner, pod)
	}
	if *joined != nil && isNamespace((*joined).Userns, owner) {
		return spec.OwnerSandbox
	}
	return spec.OwnerOther
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
