// SPDX-License-Identifier: Apache-2.0

package config

// Choice is the value of a key that allows a few words only, which the table of
// [Keys] lists.
type Choice string

// The choices of the keys, by which their names begin.
const (
	// NestingFull gives what systemd, Docker and Kubernetes need inside.
	NestingFull Choice = "full"
	// NestingOff leaves devices, masks and cgroups as the caller asked.
	NestingOff Choice = "off"

	// InitAuto finds out what the entry point is.
	InitAuto Choice = "auto"
	// InitSystemd takes the first process for systemd.
	InitSystemd Choice = "systemd"
	// InitOther takes it for something else.
	InitOther Choice = "other"

	// CapsFull gives every capability that means something inside a user
	// namespace.
	CapsFull Choice = "full"
	// CapsHonor gives what the caller asked for and nothing else.
	CapsHonor Choice = "honor"

	// SeccompWiden adds what nesting needs to the caller's profile.
	SeccompWiden Choice = "widen"
	// SeccompKeep leaves the caller's profile as it is.
	SeccompKeep Choice = "keep"

	// AppArmorAuto replaces the profiles that engines give by default, which
	// deny mounts, by isolate-default, where that is loaded.
	AppArmorAuto Choice = "auto"
	// AppArmorKeep leaves the caller's profile, or none.
	AppArmorKeep Choice = "keep"

	// ForeignNetnsDegrade runs the container without network administration.
	ForeignNetnsDegrade Choice = "degrade"
	// ForeignNetnsRefuse does not run it.
	ForeignNetnsRefuse Choice = "refuse"

	// AdoptExclusive refuses a mapping with ids that another container has.
	AdoptExclusive Choice = "exclusive"
	// AdoptShared lets containers have ids in common if their callers say so.
	AdoptShared Choice = "shared"

	// PodsApart gives containers that share namespaces a user namespace each.
	PodsApart Choice = "apart"
	// PodsShared gives them one for all.
	PodsShared Choice = "shared"

	// RootfsAuto tries the methods below in this order.
	RootfsAuto Choice = "auto"
	// RootfsDetached hands detached layer mounts to overlayfs (Linux 6.15).
	RootfsDetached Choice = "detached"
	// RootfsPrivate mounts the layers in a private mount namespace first
	// (Linux 5.19).
	RootfsPrivate Choice = "private"
	// RootfsChown maps nothing and moves the ids on disk instead.
	RootfsChown Choice = "chown"

	// FallbackRefuse refuses a root file system that cannot be idmapped.
	FallbackRefuse Choice = "refuse"
	// FallbackChown moves its ids on disk.
	FallbackChown Choice = "chown"

	// LXCFSAuto uses lxcfs where it answers and warns where it does not.
	LXCFSAuto Choice = "auto"
	// LXCFSRequire refuses a container when lxcfs does not answer.
	LXCFSRequire Choice = "require"
	// LXCFSOff does not look for lxcfs.
	LXCFSOff Choice = "off"
)

// choices are the values that a key allows.
func choices(values ...Choice) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}
