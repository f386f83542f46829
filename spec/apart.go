// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const (
	sysAdmin = "CAP_SYS_ADMIN"
	netAdmin = "CAP_NET_ADMIN"
)

// place decides in which user namespace a container lives that shares namespaces
// with others: those of a pod, or Docker's --network container:X.
//
// With every capability in one user namespace, a container could enter the mount
// namespaces of all others in it. So each has a user namespace of its own, beside
// the one that the shared namespaces belong to and with the same ids. It has every
// capability there, and none over the others or over what it shares with them.
//
// A container that asks for administration, or for the processes of others, shares
// their user namespace, as with any runtime. There it has the capabilities that it
// asked for. With CAP_SYS_ADMIN it has all, since that one reaches the others anyway.
func (d *Decision) place(s *specs.Spec, f Facts, p Policy) {
	if !p.Apart || f.Sandbox == nil {
		return
	}
	if d.Mode == ModeAdopt && f.Joined[specs.UserNamespace] != OwnerSandbox {
		return // a user namespace that the caller chose for it alone
	}
	pid := Namespace(s, specs.PIDNamespace)
	switch sharesPIDs := pid != nil && pid.Path != ""; {
	case sharesPIDs && f.Peer != nil:
		d.Peer = true
	case sharesPIDs, asksFor(s, netAdmin), asksFor(s, sysAdmin):
		d.AsAsked = f.Sandbox.Pod && !asksFor(s, sysAdmin)
	case p.OneUserns:
		d.AsAsked = true
		d.Warnings = append(d.Warnings, "container shares namespaces with others, and this OCI runtime cannot enter namespaces of two user namespaces: it has no capabilities but those that the caller names (use runc 1.3 or later, or crun)")
	default:
		d.Apart = true
	}
}

// outside tells whether a namespace that the spec joins belongs to a user
// namespace over which the container has no capabilities, since it is apart.
func (d *Decision) outside(s *specs.Spec, t specs.LinuxNamespaceType) bool {
	n := Namespace(s, t)
	return (d.Apart || d.Peer) && n != nil && n.Path != ""
}

// asksFor tells whether the caller gives the container a capability.
func asksFor(s *specs.Spec, capability string) bool {
	return s.Process != nil && s.Process.Capabilities != nil && slices.Contains(s.Process.Capabilities.Bounding, capability)
}
