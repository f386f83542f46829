// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"context"
	"fmt"
	"strings"
)

// Thaw thaws a group and all groups below it (version 1's freezer). No signal ends a
// frozen process, not even SIGKILL. On version 2 SIGKILL ends frozen processes, and Thaw
// does nothing.
//
// It thaws a group before the groups below: a group stays frozen as long as one above it
// is.
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

// selfFreezing is the file that tells whether the group itself was frozen, and not only
// one above it (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).
const selfFreezing = "freezer.self_freezing"

// thaw thaws one group. It writes only to a frozen one, since a write costs the kernel a
// walk through all groups below.
func thaw(at int, name string) error {
	frozen, err := read(at, name, selfFreezing)
	if err != nil || strings.TrimSpace(frozen) == "0" {
		return err
	}
	return write(at, name, "freezer.state", "THAWED")
}
