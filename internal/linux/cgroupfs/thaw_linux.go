// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"context"
	"fmt"
	"strings"
)

// Thaw lets the processes of a group and of all below it run, where something in this
// tree has frozen them (version 1's freezer). A signal does not end a frozen process
// before that, SIGKILL neither; on version 2 SIGKILL ends them, and Thaw does nothing.
//
// Above comes before below: a group stays frozen as long as one above it is.
func Thaw(ctx context.Context, dir string) error {
	top, err := open(dir)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("thaw cgroup: %w", err)
	}
	defer top.Close()
	if _, err := read(int(top.Fd()), ".", selfFreezing); gone(err) {
		return nil // not the freezer's hierarchy
	}
	if err := walk(ctx, top, visitor{enter: thaw}); err != nil {
		return fmt.Errorf("thaw cgroup %s: %w", dir, err)
	}
	return nil
}

// selfFreezing tells whether the group was frozen itself, or only one above it
// (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).
const selfFreezing = "freezer.self_freezing"

// thaw thaws one group. A write costs the kernel a walk through all groups below, so
// that it is not done in vain.
func thaw(at int, name string) error {
	frozen, err := read(at, name, selfFreezing)
	if err != nil || strings.TrimSpace(frozen) == "0" {
		return err
	}
	return write(at, name, "freezer.state", "THAWED")
}
