// SPDX-License-Identifier: Apache-2.0

package task

import "github.com/isolate-shim/isolate/internal/linux/cgroupfs"

// cgroupDirs lists the directories that a cgroup path means on this host; none if the
// path is not known.
func cgroupDirs(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	return cgroupfs.Dirs(path)
}
