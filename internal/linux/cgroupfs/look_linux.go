// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// Look says what is in a group: whether processes are in it or below it, and to whom
// the groups in it belong. The error is fs.ErrNotExist if there is no such group.
func Look(ctx context.Context, dir string) (busy bool, owners []uint32, _ error) {
	top, err := open(dir)
	if err != nil {
		return false, nil, err
	}
	defer top.Close()
	if busy, err = populated(ctx, top); err != nil {
		return false, nil, fmt.Errorf("look for processes of cgroup %s: %w", dir, err)
	}
	// Each group is skipped, once it was seen.
	err = walk(ctx, top, visitor{skip: func(st unix.Stat_t) bool {
		owners = append(owners, st.Uid)
		return true
	}})
	return busy, owners, err
}
