// SPDX-License-Identifier: Apache-2.0

package feature

import "fmt"

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

// Needs says which Linux would do, if the running one is older.
func Needs(release, version string) string {
	if !Older(release, version) {
		return ""
	}
	return fmt.Sprintf(" (needs Linux %s)", version)
}
