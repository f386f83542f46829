// SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/idmap/pool"
	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/shim/record"
	"github.com/isolate-shim/isolate/spec"
)

// facts looks up what spec.Decide must know: whose the namespaces are that the
// spec joins, and whether the container belongs to one of ours.
func (s *Service) facts(ctx context.Context, sp *specs.Spec, pod spec.Pod, rootfsMapped bool) (spec.Facts, error) {
	f := spec.Facts{Joined: map[specs.LinuxNamespaceType]spec.Owner{}, RootfsMapped: rootfsMapped}
	host, err := os.Open("/proc/self/ns/user")
	if err != nil {
		return f, fmt.Errorf("own user namespace: %w", err)
	}
	defer host.Close()
	for _, n := range sp.Linux.Namespaces {
		if n.Path == "" || n.Type == specs.UserNamespace {
			continue
		}
		owner, err := namespaceOwner(n.Path)
		if err != nil {
			return f, fmt.Errorf("%s namespace: %w", n.Type, err)
		}
		f.Joined[n.Type] = s.classify(ctx, owner, host, pod, &f.Sandbox)
		owner.Close()
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
func (s *Service) peer(path string, sandbox *spec.Sandbox) (*spec.Sandbox, error) {
	owner, err := namespaceOwner(path)
	if err != nil {
		return nil, fmt.Errorf("pid namespace: %w", err)
	}
	defer owner.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.containers {
		if c.sandbox == nil || c.sandbox.ID != sandbox.ID {
			continue
		}
		if out := c.asSandbox(); out != nil && isNamespace(out.Userns, owner) {
			return out, nil
		}
	}
	return nil, nil
}

// sandboxes says whether a user namespace that the spec joins is the sandbox's.
func sandboxes(path string, sandbox *spec.Sandbox) (spec.Owner, error) {
	ns, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("user namespace: %w", err)
	}
	defer ns.Close()
	if isNamespace(sandbox.Userns, ns) {
		return spec.OwnerSandbox, nil
	}
	return spec.OwnerOther, nil
}

func namespaceOwner(path string) (*os.File, error) {
	ns, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return idmap.UsernsOwner(ns)
}

// classify says whose a user namespace is. One of a container of ours becomes
// the sandbox to join, if there is none yet.
func (s *Service) classify(ctx context.Context, owner, host *os.File, pod spec.Pod, joined **spec.Sandbox) spec.Owner {
	if same(owner, host) {
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
func (s *Service) sandboxOf(ctx context.Context, userns *os.File, pod spec.Pod) *spec.Sandbox {
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

func isNamespace(path string, ns *os.File) bool {
	f, err := os.Open(path)
	if err != nil {
		return false // its process is gone
	}
	defer f.Close()
	return same(f, ns)
}

// same is false as well for a namespace that cannot be looked at: then nothing
// is known of it.
func same(a, b *os.File) bool {
	ok, err := idmap.SameNamespace(a, b)
	return err == nil && ok
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
