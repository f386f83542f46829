// SPDX-License-Identifier: Apache-2.0

package thread

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// InNetwork runs fn on a thread of its own in a network namespace, for
// what the kernel looks up by the network namespace of whoever asks, such as
// /proc/sys/net. Mounts and credentials are this process's.
func InNetwork(ns *os.File, fn func() error) error {
	return Run(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %q: %w", ns.Name(), err)
		}
		return fn()
	})
}
