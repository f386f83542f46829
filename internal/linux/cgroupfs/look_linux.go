// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// Look says whether processes are in a group or below it, and which users own the groups
// directly in it. The error is fs.ErrNotExist if there is no such group.
func Look(ctx context.Context, dir string) (busy bool, owners []uint32, _ error) {
	top, err := open(dir)
	if err != nil {
		return false, nil, err
	}
	defer top.Close()
	if busy, err = populated(ctx, top); err != nil {
		return false, nil, fmt.Errorf("look for processes of cgroup %s: %w", dir, err)
	}
	// The walk notes each group and does not enter it.
	err = walk(ctx, top, visitor{skip: func(st unix.Stat_t) bool {
		owners = append(owners, st.Uid)
		return true
	}})
	return busy, owners, err
}
