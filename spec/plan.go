// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"github.com/isolate-shim/isolate/idmap"
)

// Policy is what the administrator decided, as far as the spec is concerned.
type Policy struct {
	// RefuseForeignNetns refuses instead of degrading a container whose
	// network namespace belongs to another user namespace.
	RefuseForeignNetns bool
	// Apart keeps containers that share namespaces, and would have every
	// capability, in user namespaces of their own.
	Apart bool
	// OneUserns is set if the OCI runtime cannot exec into a container whose
	// namespaces belong to more than one user namespace. Apart then costs a
	// container its capabilities.
	OneUserns bool
}

// Plan is everything Apply needs: the decision, the ids, and where the shim
// staged what the spec refers to.
type Plan struct {
	Decision

	// Mapping is the container's id mapping. In mode adopt it is the caller's.
	Mapping idmap.Mapping
	// Userns is the path of the user namespace to join: the sandbox's, or the one
	// that the shim has made. If it is empty, the runtime makes one, or the caller
	// has named one (ModeAdopt).
	Userns string
	// Rootfs replaces root.path; empty leaves it.
	Rootfs string
	// Staged maps the index of a mount of the spec (as Volumes numbers them)
	// to its staged clone.
	Staged map[int]StagedMount
	// Nodes are the devices that the container was given: those of Nodes, and those
	// that it gets by bind mounts.
	Nodes []Node
	// NetSysctlsSet tells that the shim has set NetSysctls.
	NetSysctlsSet bool
	// Annotations says which annotations reach the OCI runtime.
	Annotations struct {
		// Allowed are the names that the administrator allows.
		Allowed []string
		// Obeyed are those that the runtime says it obeys.
		Obeyed []string
	}
	// OCIVersion is the ociVersion to write, for runtimes that refuse the
	// caller's (crun 1.8.1 and containerd 2.4: "unknown version specified");
	// empty leaves it.
	OCIVersion string
	// Timens is the path of the time namespace that the shim has made for the
	// container, "" for none.
	Timens string
	// MisreportsPIDs tells that the runtime reports a wrong pid when it joins a pid
	// namespace and makes a time namespace (crun).
	MisreportsPIDs bool
	// Nesting is nil for nesting = "off".
	Nesting *Nesting
}

// StagedMount is a clone that the runtime is to use instead of a volume's source.
type StagedMount struct {
	// Source is its path on the host.
	Source string
	// Flags are the mount(8) options ro, nosuid, nodev and noexec that it has,
	// by the spec's wish or because its source has them.
	Flags []string
	// Kernel is the type of the file system of the kernel that it stands in for,
	// "" for a volume.
	Kernel string
}
