// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/isolate-shim/isolate/spec"
)

// IDs says where the host ids of a container come from.
type IDs int

const (
	// Acquired ids are a range of the pool that no other container has.
	Acquired IDs = iota
	// Shared ids are the range of the container that this one joins.
	Shared
	// Adopted ids are those of a mapping that a client has made, for this container or
	// for the one that it joins.
	Adopted
)

// IDsOf tells where the ids of a container come from. For adopted ones it returns the
// path of the user namespace that has them, or "" if there is none yet.
func IDsOf(s *specs.Spec, mode spec.Mode, sandbox *spec.Sandbox) (from IDs, userns string) {
	switch {
	case mode == spec.ModeAdopt:
		return Adopted, spec.Namespace(s, specs.UserNamespace).Path
	case mode == spec.ModeJoin && sandbox.Mode != spec.ModeOwn:
		return Adopted, sandbox.Userns
	case mode == spec.ModeJoin:
		return Shared, ""
	default:
		return Acquired, ""
	}
}

// MapsRootfs tells whether the shim maps the rootfs. The caller has prepared it for a
// mapping of its own by changing the owners of the files, or, if it has mapped the
// mounts, by options that containerd understands.
func MapsRootfs(mode spec.Mode, sandbox *spec.Sandbox, mounted bool) bool {
	switch mode {
	case spec.ModeAdopt:
		return false
	case spec.ModeJoin:
		return sandbox.Mode == spec.ModeOwn && !mounted
	default:
		return true
	}
}

// MakesUserns tells whether somebody has to make a user namespace for the container.
func MakesUserns(s *specs.Spec, p *spec.Plan) bool {
	if p.Userns != "" {
		return false
	}
	n := spec.Namespace(s, specs.UserNamespace)
	return n == nil || n.Path == "" || p.Apart
}

// Userns is the path of the user namespace that the container joins, "" if its runtime
// makes one.
func Userns(s *specs.Spec, p *spec.Plan) string {
	if n := spec.Namespace(s, specs.UserNamespace); p.Userns == "" && n != nil {
		return n.Path
	}
	return p.Userns
}

// OwnPIDs tells whether the container is alone in its pid namespace.
func OwnPIDs(s *specs.Spec) bool {
	n := spec.Namespace(s, specs.PIDNamespace)
	return n != nil && n.Path == ""
}
