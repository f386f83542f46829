// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"slices"
)

// Path finds the group of a controller in a /proc/PID/cgroup: on version 2 that of the
// only hierarchy.
func Path(content, controller string) (string, error) {
	all, err := parseMemberships(content)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(all, func(m membership) bool { return m.has(controller) })
	if i < 0 {
		i = slices.IndexFunc(all, membership.Unified)
	}
	if i < 0 {
		return "", fmt.Errorf("the process is in no group of controller %s", controller)
	}
	if !local(all[i].Path) {
		return "", fmt.Errorf("group %s is outside of this cgroup namespace", all[i].Path)
	}
	return all[i].Path, nil
}
