// SPDX-License-Identifier: Apache-2.0

package lxcfs

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// fsType is the type of the superblock, in mountinfo.
const fsType = "fuse.lxcfs"

// mount is a mounted lxcfs.
type mount struct {
	ID   int
	Root string // mount point
}

// choose returns the lxcfs mounts to try, best first. That is the newest one;
// older ones follow, because a mount may outlive its server. Mounts of the same
// superblock are tried once, and of a mount that shows only a part of it (files
// bound into a container) nothing is known about the rest.
//
// With a path, there must be an lxcfs on that path.
func choose(mounts []*mountinfo.Info, path string) ([]mount, error) {
	if path != "" {
		path = filepath.Clean(path)
	}
	var found []mount
	seen := map[[2]int]bool{}
	for i := len(mounts) - 1; i >= 0; i-- {
		m := mounts[i]
		if m.FSType != fsType || m.Root != "/" || path != "" && m.Mountpoint != path {
			continue
		}
		// A mount of a directory that is gone.
		if strings.HasSuffix(m.Mountpoint, "//deleted") {
			continue
		}
		if device := [2]int{m.Major, m.Minor}; !seen[device] {
			seen[device] = true
			found = append(found, mount{ID: m.ID, Root: m.Mountpoint})
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case path != "":
		return nil, absent(fmt.Sprintf("nothing of type %s is mounted on %q (lxcfs.path)", fsType, path))
	}
	return nil, absent("nothing of type " + fsType + " is mounted in this mount namespace")
}
