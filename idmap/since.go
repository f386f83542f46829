// SPDX-License-Identifier: Apache-2.0

package idmap

import "fmt"

// mappableSince tells which Linux was the first to id-map a file system
// (mount_setattr(2), "ID-mapped mounts").
var mappableSince = map[string]string{
	"ext2": "5.12", "ext3": "5.12", "ext4": "5.12", "vfat": "5.12", "xfs": "5.12", "btrfs": "5.15", "ntfs3": "5.15", "f2fs": "5.18",
	"erofs": "5.19", "squashfs": "6.2", "tmpfs": "6.3", "ceph": "6.7", "hugetlbfs": "6.9",
}

// layersSince is the first Linux that takes id-mapped layers for an overlay.
const layersSince = "5.19"

// Older tells whether a kernel's release is older than a version. It is for
// messages: a reason that the running kernel disproves is none.
func Older(release, version string) bool {
	var major, minor, wantMajor, wantMinor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return false
	}
	if _, err := fmt.Sscanf(version, "%d.%d", &wantMajor, &wantMinor); err != nil {
		return false
	}
	return major < wantMajor || major == wantMajor && minor < wantMinor
}

// needs says which Linux would do, if the running one is older.
func needs(release, version string) string {
	if !Older(release, version) {
		return ""
	}
	return fmt.Sprintf(" (needs Linux %s)", version)
}
