// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// membership is one line of /proc/PID/cgroup (cgroups(7)): the group a process
// is in, in one hierarchy.
type membership struct {
	// Controllers of a v1 hierarchy, or "name=X" of a named one; empty for v2.
	Controllers []string
	// Path of the group, relative to the root of the reader's cgroup namespace.
	// It starts with /.. if the group is outside of that.
	Path string
}

// Unified tells that this is the v2 hierarchy.
func (m membership) Unified() bool { return len(m.Controllers) == 0 }

func (m membership) has(controller string) bool { return slices.Contains(m.Controllers, controller) }

// String names the hierarchy as /proc/PID/cgroup does, and v2 "unified".
func (m membership) String() string {
	if m.Unified() {
		return "unified"
	}
	return strings.Join(m.Controllers, ",")
}

// parseMemberships parses the content of /proc/PID/cgroup.
func parseMemberships(content string) ([]membership, error) {
	var all []membership
	for line := range strings.Lines(content) {
		line = strings.TrimSuffix(line, "\n")
		fields := strings.SplitN(line, ":", 3)
		if len(fields) != 3 || !strings.HasPrefix(fields[2], "/") {
			return nil, fmt.Errorf("parse cgroup membership %q: want ID:CONTROLLERS:/PATH", line)
		}
		m := membership{Path: fields[2]}
		if fields[1] != "" {
			m.Controllers = strings.Split(fields[1], ",")
		}
		all = append(all, m)
	}
	return all, nil
}

// place is where a group can be reached in this mount namespace.
type place struct {
	mountpoint string
	rel        string // below the mountpoint, clean, no leading slash
}

func (p place) String() string { return path.Join(p.mountpoint, p.rel) }

// locate finds the mount that shows a group, or says why there is none: the hierarchy
// may not be mounted here (hybrid hosts), or the group may not be below the root of the
// mount (nested cgroup namespaces).
func locate(m membership, mounts []*mountinfo.Info) (place, string) {
	if m.Path == "/" {
		return place{}, "the process is in the root group"
	}
	if strings.HasSuffix(m.Path, " (deleted)") {
		return place{}, "the group is deleted"
	}
	if !local(m.Path) {
		return place{}, "the group is outside of this cgroup namespace"
	}
	const unmounted = "the hierarchy is not mounted here"
	reason := unmounted
	for _, mount := range mounts {
		if !carries(mount, m) {
			continue
		}
		rel, ok := below(mount.Root, m.Path)
		switch {
		case ok && rel == "":
			reason = "the group is the root of what is mounted here"
		case ok:
			return place{mountpoint: mount.Mountpoint, rel: rel}, ""
		case reason == unmounted:
			reason = "the group is not below what is mounted here"
		}
	}
	return place{}, reason
}

// carries tells that the mount shows the hierarchy of the membership.
func carries(mount *mountinfo.Info, m membership) bool {
	if m.Unified() {
		return mount.FSType == "cgroup2"
	}
	if mount.FSType != "cgroup" {
		return false
	}
	options := strings.Split(mount.VFSOptions, ",")
	return !slices.ContainsFunc(m.Controllers, func(c string) bool { return !slices.Contains(options, c) })
}

// local tells that a group's path stays below the cgroup namespace's root.
func local(group string) bool {
	return path.Clean(group) == group && !strings.HasPrefix(group+"/", "/../")
}

// below returns the path from root to group, both absolute, if there is one.
func below(root, group string) (string, bool) {
	if !local(root) {
		return "", false
	}
	rest, ok := strings.CutPrefix(group, strings.TrimSuffix(root, "/"))
	if !ok || (rest != "" && rest[0] != '/') {
		return "", false
	}
	return strings.TrimPrefix(rest, "/"), true
}
