// SPDX-License-Identifier: Apache-2.0

package config

// Choice is the value of a key that allows only a few words. The table of [Keys] lists
// them.
type Choice string

// The choices. Each name begins with its key.
const (
	// NestingFull gives what systemd, Docker and Kubernetes need inside.
	NestingFull Choice = "full"
	// NestingOff leaves devices, masks and cgroups as the caller asked.
	NestingOff Choice = "off"

	// InitAuto finds out what the entry point is.
	InitAuto Choice = "auto"
	// InitSystemd takes the first process for systemd.
	InitSystemd Choice = "systemd"
	// InitOther takes the first process for another program.
	InitOther Choice = "other"

	// CapsFull gives every capability that means something inside a user
	// namespace.
	CapsFull Choice = "full"
	// CapsHonor gives the capabilities that the caller asked for and no other.
	CapsHonor Choice = "honor"

	// SeccompWiden adds what nesting needs to the caller's profile.
	SeccompWiden Choice = "widen"
	// SeccompKeep leaves the caller's profile as it is.
	SeccompKeep Choice = "keep"

	// AppArmorAuto replaces the profiles that engines give by default, which
	// deny mounts, by isolate-default if it is loaded.
	AppArmorAuto Choice = "auto"
	// AppArmorKeep leaves the profile as the caller gave it.
	AppArmorKeep Choice = "keep"

	// ForeignNetnsDegrade runs the container without network administration.
	ForeignNetnsDegrade Choice = "degrade"
	// ForeignNetnsRefuse does not run the container.
	ForeignNetnsRefuse Choice = "refuse"

	// AdoptExclusive refuses a mapping with ids that another container has.
	AdoptExclusive Choice = "exclusive"
	// AdoptShared lets several containers have the same ids if their callers map so.
	AdoptShared Choice = "shared"

	// PodsApart gives containers that share namespaces a user namespace each.
	PodsApart Choice = "apart"
	// PodsShared gives them one user namespace for all.
	PodsShared Choice = "shared"

	// RootfsAuto tries the methods below in this order.
	RootfsAuto Choice = "auto"
	// RootfsDetached hands detached layer mounts to overlayfs (Linux 6.15).
	RootfsDetached Choice = "detached"
	// RootfsPrivate mounts the layers in a private mount namespace first
	// (Linux 5.19).
	RootfsPrivate Choice = "private"
	// RootfsChown moves the ids on disk and maps nothing.
	RootfsChown Choice = "chown"

	// FallbackRefuse refuses a root file system that cannot be idmapped.
	FallbackRefuse Choice = "refuse"
	// FallbackChown moves the ids of its files on disk.
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
