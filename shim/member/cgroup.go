// SPDX-License-Identifier: Apache-2.0

package member

import (
	"path"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// groupOf returns the path that /proc/PID/cgroup shows for a directory, given the
// cgroup mounts of this mount namespace; "" if it is in none of them. The root of
// a hierarchy is no container's: "" as well.
func groupOf(dir string, mounts []*mountinfo.Info) string {
	group, depth := "", -1
	for _, m := range mounts {
		rel, ok := strings.CutPrefix(dir, strings.TrimSuffix(m.Mountpoint, "/")+"/")
		if ok && len(m.Mountpoint) > depth {
			group, depth = path.Join(m.Root, rel), len(m.Mountpoint)
		}
	}
	return group
}

// in tells whether a process is in one of the groups or below, given the content
// of its /proc/PID/cgroup (cgroups(7)). The hierarchy does not matter: the groups
// of a container are called the same in each.
func in(content string, groups []string) bool {
	for line := range strings.Lines(content) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for _, g := range groups {
			if fields[2] == g || strings.HasPrefix(fields[2], g+"/") {
				return true
			}
		}
	}
	return false
}
