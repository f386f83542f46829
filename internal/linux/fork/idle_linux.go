// SPDX-License-Identifier: Apache-2.0

package fork

import "golang.org/x/sys/unix"

// Idle starts a process that exists only to keep new namespaces alive until
// somebody holds them by file descriptor. The calling goroutine must be locked to its
// thread, since the child dies with that thread.
//
// CLONE_FILES: the child has no copies of this process's descriptors, so it cannot
// hold a mount busy or a file lock alive.
func Idle(flags uint64) (*Process, error) {
	c := Call{bare: true}
	return c.start(flags|unix.CLONE_FILES, c.idle)
}

//go:nosplit
//go:norace
func (c *Call) idle() {
	if c.InChild() {
		sleep()
	}
}
