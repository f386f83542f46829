// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"slices"
	"strings"
)

// Frozen tells whether a group was frozen, as the one of a paused container is. A group
// of a hierarchy of version 1 that is not the freezer's is not.
func Frozen(dir string) bool {
	top, err := open(dir)
	if err != nil {
		return false
	}
	defer top.Close()
	if events, err := read(int(top.Fd()), ".", "cgroup.events"); err == nil {
		return slices.Contains(strings.Split(events, "\n"), "frozen 1")
	}
	state, err := read(int(top.Fd()), ".", "freezer.state")
	return err == nil && strings.TrimSpace(state) != "THAWED"
}
