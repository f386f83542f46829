// SPDX-License-Identifier: Apache-2.0

package cgroup

import "strings"

// filesV1 are the files of a v1 group by which processes are moved. Nothing
// else is safe to give away: v1 has no delegation, and every other file is a
// limit or a switch.
var filesV1 = []string{"cgroup.procs", "tasks"}

// fallbackV2 is the list of cgroups(7) for kernels without
// /sys/kernel/cgroup/delegate (before 4.15).
var fallbackV2 = []string{"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"}

// parseDelegate parses the content of /sys/kernel/cgroup/delegate: one a line, the
// names of the files that are given away with a v2 group. Names that are not plain file
// names are left out.
func parseDelegate(content string) []string {
	var names []string
	for name := range strings.FieldsSeq(content) {
		if !strings.Contains(name, "/") && name != "." && name != ".." {
			names = append(names, name)
		}
	}
	return names
}
