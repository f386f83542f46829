// SPDX-License-Identifier: Apache-2.0

package rootfs

import "fmt"

// Method is a way to build an overlay from id-mapped layers.
type Method uint8

const (
	// MethodAuto tries the others in order and remembers what worked.
	MethodAuto Method = iota
	// MethodDetached hands detached clones of the layers to the overlay by file
	// descriptor; nothing is attached anywhere (Linux 6.15).
	MethodDetached
	// MethodPrivate attaches the clones in a mount namespace that only one
	// throw-away thread is in, and takes the finished mount out (Linux 5.19).
	MethodPrivate
)

// String returns the name used in messages and in the configuration.
func (m Method) String() string {
	switch m {
	case MethodAuto:
		return "auto"
	case MethodDetached:
		return "detached"
	case MethodPrivate:
		return "private"
	}
	return fmt.Sprintf("Method(%d)", uint8(m))
}
