// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Processors returns how many processors the quotas of a group, and of the groups above
// it, let its processes use: without a quota, as many as the machine has. dirs are the
// group's directories, one in each hierarchy. A container cannot change these quotas.
func Processors(dirs []string) float64 {
	least := float64(runtime.NumCPU())
	for _, dir := range dirs {
		for ; len(dir) > len(mountpoint); dir = filepath.Dir(dir) {
			if n, ok := quota(dir); ok {
				least = min(least, n)
			}
		}
	}
	return least
}

func quota(dir string) (float64, bool) {
	if text, err := os.ReadFile(filepath.Join(dir, "cpu.max")); err == nil {
		return parseQuota(strings.Fields(string(text)))
	}
	limit, err := os.ReadFile(filepath.Join(dir, "cpu.cfs_quota_us"))
	if err != nil {
		return 0, false
	}
	period, err := os.ReadFile(filepath.Join(dir, "cpu.cfs_period_us"))
	if err != nil {
		return 0, false
	}
	return parseQuota(strings.Fields(string(limit) + " " + string(period)))
}

// parseQuota reads quota and period, in microseconds. "max" and negative numbers
// mean that there is no quota.
func parseQuota(fields []string) (float64, bool) {
	if len(fields) != 2 {
		return 0, false
	}
	limit, err1 := strconv.ParseUint(fields[0], 10, 63)
	period, err2 := strconv.ParseUint(fields[1], 10, 63)
	if err1 != nil || err2 != nil || period == 0 {
		return 0, false
	}
	return float64(limit) / float64(period), true
}
