// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"path/filepath"
	"runtime"
)

// Processors returns how many processors the quotas of a group, and of the groups above
// it, let its processes use: without a quota, as many as the machine has. dirs are the
// group's directories, one in each hierarchy. A container cannot change these quotas.
func Processors(dirs []string) float64 {
	least := float64(runtime.NumCPU())
	for _, dir := range dirs {
		for ; len(dir) > len(mountpoint); dir = filepath.Dir(dir) {
			if q, _, ok := readQuota(dir); ok {
				least = min(least, q.processors())
			}
		}
	}
	return least
}
