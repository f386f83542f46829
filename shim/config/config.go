// SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"
	"time"

	"github.com/isolate-shim/isolate/idmap"
)

// Config is the effective configuration of one container. Field comments are
// short on purpose: the full text of each key is in the table of [Keys].
type Config struct {
	// Nesting tells whether containers get what they need to run containers
	// inside.
	Nesting Choice `toml:"nesting"`
	// Init tells whether the first process is systemd.
	Init Choice `toml:"init"`
	// Caps tells which capabilities a container's root has.
	Caps Choice `toml:"caps"`
	// Seccomp tells what happens to the caller's seccomp profile.
	Seccomp Choice `toml:"seccomp"`
	// AppArmor tells what happens to the profile that the caller's engine
	// gives by default.
	AppArmor Choice `toml:"apparmor"`
	// ForeignNetns tells what happens when the container's network namespace
	// belongs to another user namespace.
	ForeignNetns Choice `toml:"foreign_netns"`
	// Pods tells whether containers that share namespaces share their user
	// namespace too.
	Pods Choice `toml:"pods"`

	Runtime     Runtime     `toml:"runtime"`
	IDs         IDs         `toml:"ids"`
	Rootfs      Rootfs      `toml:"rootfs"`
	Volumes     Volumes     `toml:"volumes"`
	LXCFS       LXCFS       `toml:"lxcfs"`
	Cgroup      Cgroup      `toml:"cgroup"`
	Annotations Annotations `toml:"annotations"`
}

// Runtime selects and configures the OCI runtime.
type Runtime struct {
	// Binary is an absolute path, a name to find on PATH, or "".
	Binary string `toml:"binary"`
	// Root is the runtime's state directory (runc --root), or "".
	Root string `toml:"root"`
	// SystemdCgroup is runc's --systemd-cgroup, for callers who name cgroups in
	// another form than systemd's.
	SystemdCgroup bool `toml:"systemd_cgroup"`
}

// IDs says which host ids containers get.
type IDs struct {
	// Pool holds the ranges of host ids; empty means "find out".
	Pool []IDRange `toml:"pool"`
	// Size is the number of ids of one container, a multiple of [idmap.SlotSize].
	Size uint32 `toml:"size"`
	// Adopt tells whether callers that map ids themselves may give the same to
	// several containers.
	Adopt Choice `toml:"adopt"`
}

// Rootfs says how root file systems are mapped.
type Rootfs struct {
	Method   Choice `toml:"method"`
	Fallback Choice `toml:"fallback"`
}

// Volumes says how bind mounts are mapped.
type Volumes struct {
	// RequireIDMap refuses a bind mount that cannot be idmapped.
	RequireIDMap bool `toml:"require_idmap"`
}

// LXCFS says how a container gets the files of lxcfs.
type LXCFS struct {
	Mode Choice `toml:"mode"`
	// Path is the mount point of lxcfs, or "" to look for it in mountinfo.
	Path string `toml:"path"`
	// TimeoutMS bounds the look at lxcfs, in milliseconds.
	TimeoutMS uint32 `toml:"timeout_ms"`
	// Nested gives the containers inside a container its limits as well.
	Nested bool `toml:"nested"`
	// Sysinfo answers sysinfo(2) as the files of lxcfs do.
	Sysinfo bool `toml:"sysinfo"`
	// AbortHung ends the FUSE connection of an lxcfs that does not answer.
	AbortHung bool `toml:"abort_hung"`
}

// Timeout is TimeoutMS as a duration.
func (l LXCFS) Timeout() time.Duration {
	return time.Duration(l.TimeoutMS) * time.Millisecond
}

// Cgroup bounds the groups that a container makes below its own (cgroup v2). Zero is
// no bound.
type Cgroup struct {
	MaxDescendants uint32 `toml:"max_descendants"`
	MaxDepth       uint32 `toml:"max_depth"`
}

// Annotations says what a container may ask for by itself.
type Annotations struct {
	// Allow holds short keys: "size" stands for io.containerd.isolate.size; and
	// whole names of annotations that the OCI runtime obeys.
	Allow []string `toml:"allow"`
}

// Default returns the configuration of a host without any file.
func Default() Config {
	return Config{
		Nesting:      NestingFull,
		Init:         InitAuto,
		Caps:         CapsFull,
		Seccomp:      SeccompWiden,
		AppArmor:     AppArmorAuto,
		ForeignNetns: ForeignNetnsDegrade,
		Pods:         PodsApart,
		IDs:          IDs{Size: idmap.SlotSize, Adopt: AdoptExclusive},
		Rootfs:       Rootfs{Method: RootfsAuto, Fallback: FallbackRefuse},
		Cgroup:       Cgroup{MaxDescendants: 2000, MaxDepth: 50},
		LXCFS:        LXCFS{Mode: LXCFSAuto, TimeoutMS: 500, Nested: true, Sysinfo: true},
	}
}

// clone returns a copy that shares no memory with c.
func (c Config) clone() Config {
	c.IDs.Pool = slices.Clone(c.IDs.Pool)
	c.Annotations.Allow = slices.Clone(c.Annotations.Allow)
	return c
}
