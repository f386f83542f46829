// SPDX-License-Identifier: Apache-2.0

package feature

import "golang.org/x/sys/unix"

// Release is uname -r, for messages.
func Release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
