// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// leafName is the child group that takes the container's first processes. It is the name
// of systemd's own (systemd.special(7)): lxcfs takes who is in such a group for one of the
// group above (src/utils.c: prune_init_slice), and so shows the quota of the container, and
// the memory that all of it uses.
const leafName = "init.scope"

// mountpoint is where programs look for the one hierarchy of a v2 system.
const mountpoint = "/sys/fs/cgroup"

// noLeaf says why init is not to be moved to a leaf, or "" if it is to be.
//
// A leaf makes sense only if a program inside can make groups beside it: if the
// container sees its group as the root of the hierarchy, writable. In all other cases
// the move would only change the path in /proc/self/cgroup, which programs do not find
// below /sys/fs/cgroup.
func noLeaf(group membership, own bool, mounts []*mountinfo.Info) string {
	if own {
		return "the container has no cgroup namespace of its own"
	}
	var top *mountinfo.Info
	for _, m := range mounts { // the last mount at a place covers the earlier ones
		if m.Mountpoint == mountpoint {
			top = m
		}
	}
	switch {
	case top == nil:
		return "nothing is mounted on " + mountpoint + " inside"
	case top.FSType != "cgroup2":
		return mountpoint + " inside is not pure cgroup v2"
	case readOnly(top.Options), readOnly(top.VFSOptions):
		return mountpoint + " inside is read-only"
	case top.Root != group.Path:
		return mountpoint + " inside shows another group"
	}
	return ""
}

func readOnly(options string) bool { return slices.Contains(strings.Split(options, ","), "ro") }
