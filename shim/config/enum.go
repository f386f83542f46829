// SPDX-License-Identifier: Apache-2.0

package config

import "slices"

// Nesting is the value of the key nesting.
type Nesting string

// The values of [Nesting].
const (
	// NestingFull gives what systemd, Docker and Kubernetes need inside.
	NestingFull Nesting = "full"
	// NestingOff leaves devices, masks and cgroups as the caller asked.
	NestingOff Nesting = "off"
)

// Valid tells whether n is one of the values above.
func (n Nesting) Valid() bool { return slices.Contains(nestings, n) }

// Init is the value of the key init.
type Init string

// The values of [Init].
const (
	// InitAuto finds out what the entry point is.
	InitAuto Init = "auto"
	// InitSystemd takes the first process for systemd.
	InitSystemd Init = "systemd"
	// InitOther takes it for something else.
	InitOther Init = "other"
)

// Valid tells whether i is one of the values above.
func (i Init) Valid() bool { return slices.Contains(inits, i) }

// Caps is the value of the key caps.
type Caps string

// The values of [Caps].
const (
	// CapsFull gives every capability that means something inside a user
	// namespace.
	CapsFull Caps = "full"
	// CapsHonor gives what the caller asked for and nothing else.
	CapsHonor Caps = "honor"
)

// Valid tells whether c is one of the values above.
func (c Caps) Valid() bool { return slices.Contains(capsValues, c) }

// Seccomp is the value of the key seccomp.
type Seccomp string

// The values of [Seccomp].
const (
	// SeccompWiden adds what nesting needs to the caller's profile.
	SeccompWiden Seccomp = "widen"
	// SeccompKeep leaves the caller's profile as it is.
	SeccompKeep Seccomp = "keep"
)

// Valid tells whether s is one of the values above.
func (s Seccomp) Valid() bool { return slices.Contains(seccomps, s) }

// AppArmor is the value of the key apparmor.
type AppArmor string

// The values of [AppArmor].
const (
	// AppArmorAuto replaces the profiles that engines give by default, which
	// deny mounts, by isolate-default, where that is loaded.
	AppArmorAuto AppArmor = "auto"
	// AppArmorKeep leaves the caller's profile, or none.
	AppArmorKeep AppArmor = "keep"
)

// Valid tells whether a is one of the values above.
func (a AppArmor) Valid() bool { return slices.Contains(appArmors, a) }

// ForeignNetns is the value of the key foreign_netns.
type ForeignNetns string

// The values of [ForeignNetns].
const (
	// ForeignNetnsDegrade runs the container without network administration.
	ForeignNetnsDegrade ForeignNetns = "degrade"
	// ForeignNetnsRefuse does not run it.
	ForeignNetnsRefuse ForeignNetns = "refuse"
)

// Valid tells whether f is one of the values above.
func (f ForeignNetns) Valid() bool { return slices.Contains(foreignNetnses, f) }

// AdoptIDs is the value of the key ids.adopt.
type AdoptIDs string

// The values of [AdoptIDs].
const (
	// AdoptExclusive refuses a mapping with ids that another container has.
	AdoptExclusive AdoptIDs = "exclusive"
	// AdoptShared lets containers have ids in common if their callers say so.
	AdoptShared AdoptIDs = "shared"
)

// Valid tells whether a is one of the values above.
func (a AdoptIDs) Valid() bool { return slices.Contains(adoptIDs, a) }

// Pods is the value of the key pods.
type Pods string

// The values of [Pods].
const (
	// PodsApart gives containers that share namespaces a user namespace each.
	PodsApart Pods = "apart"
	// PodsShared gives them one for all.
	PodsShared Pods = "shared"
)

// Valid tells whether p is one of the values above.
func (p Pods) Valid() bool { return slices.Contains(podsValues, p) }

// RootfsMethod is the value of the key rootfs.method.
type RootfsMethod string

// The values of [RootfsMethod].
const (
	// RootfsAuto tries the methods below in this order.
	RootfsAuto RootfsMethod = "auto"
	// RootfsDetached hands detached layer mounts to overlayfs (Linux 6.15).
	RootfsDetached RootfsMethod = "detached"
	// RootfsPrivate mounts the layers in a private mount namespace first
	// (Linux 5.19).
	RootfsPrivate RootfsMethod = "private"
	// RootfsChown maps nothing and moves the ids on disk instead.
	RootfsChown RootfsMethod = "chown"
)

// Valid tells whether m is one of the values above.
func (m RootfsMethod) Valid() bool { return slices.Contains(rootfsMethods, m) }

// RootfsFallback is the value of the key rootfs.fallback.
type RootfsFallback string

// The values of [RootfsFallback].
const (
	// FallbackRefuse refuses a root file system that cannot be idmapped.
	FallbackRefuse RootfsFallback = "refuse"
	// FallbackChown moves its ids on disk.
	FallbackChown RootfsFallback = "chown"
)

// Valid tells whether f is one of the values above.
func (f RootfsFallback) Valid() bool { return slices.Contains(rootfsFallbacks, f) }

// LXCFSMode is the value of the key lxcfs.mode.
type LXCFSMode string

// The values of [LXCFSMode].
const (
	// LXCFSAuto uses lxcfs where it answers and warns where it does not.
	LXCFSAuto LXCFSMode = "auto"
	// LXCFSRequire refuses a container when lxcfs does not answer.
	LXCFSRequire LXCFSMode = "require"
	// LXCFSOff does not look for lxcfs.
	LXCFSOff LXCFSMode = "off"
)

// Valid tells whether m is one of the values above.
func (m LXCFSMode) Valid() bool { return slices.Contains(lxcfsModes, m) }

// The values of each enumeration, in the order the documentation lists them.
var (
	nestings        = []Nesting{NestingFull, NestingOff}
	inits           = []Init{InitAuto, InitSystemd, InitOther}
	capsValues      = []Caps{CapsFull, CapsHonor}
	seccomps        = []Seccomp{SeccompWiden, SeccompKeep}
	appArmors       = []AppArmor{AppArmorAuto, AppArmorKeep}
	foreignNetnses  = []ForeignNetns{ForeignNetnsDegrade, ForeignNetnsRefuse}
	adoptIDs        = []AdoptIDs{AdoptExclusive, AdoptShared}
	podsValues      = []Pods{PodsApart, PodsShared}
	rootfsMethods   = []RootfsMethod{RootfsAuto, RootfsDetached, RootfsPrivate, RootfsChown}
	rootfsFallbacks = []RootfsFallback{FallbackRefuse, FallbackChown}
	lxcfsModes      = []LXCFSMode{LXCFSAuto, LXCFSRequire, LXCFSOff}
)

// texts returns the values of an enumeration as plain strings.
func texts[E ~string](values []E) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}
