// SPDX-License-Identifier: Apache-2.0

package cgroupfs

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Mountpoint is where the hierarchies of the host are mounted: version 2 on it, those of
// version 1 on directories in it.
const Mountpoint = "/sys/fs/cgroup"

// Dirs returns the directories that the path of a group stands for on this host: one on
// version 2, and on version 1 one in each mounted hierarchy. They need not exist.
//
// A directory beside the hierarchies on which nothing is mounted does not count: a
// controller may have left it behind, and crun makes plain directories there.
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
