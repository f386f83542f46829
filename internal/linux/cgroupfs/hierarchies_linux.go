// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Mountpoint is where the hierarchies of the host are mounted: the one of version 2, or
// the many of version 1, in directories of it.
const Mountpoint = "/sys/fs/cgroup"

// Dirs returns the directories that the path of a group means on this host: one on
// version 2, and on version 1 one in each hierarchy that is mounted. Nothing says that
// they exist.
//
// Other directories beside the hierarchies are none: a controller that is not mounted
// may have left one behind, and crun makes plain directories there.
func Dirs(path string) ([]string, error) { return dirs(Mountpoint, path) }

func dirs(mountpoint, path string) ([]string, error) {
	if mounted(mountpoint) {
		return []string{filepath.Join(mountpoint, path)}, nil
	}
	entries, err := os.ReadDir(mountpoint)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries { // links lead to hierarchies that are listed as well
		if dir := filepath.Join(mountpoint, e.Name()); e.IsDir() && mounted(dir) {
			all = append(all, filepath.Join(dir, path))
		}
	}
	return all, nil
}

func mounted(dir string) bool {
	var sys unix.Statfs_t
	return unix.Statfs(dir, &sys) == nil && isCgroup(sys)
}
