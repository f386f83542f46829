// SPDX-License-Identifier: Apache-2.0

package idmap

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// MountKernelFS mounts a file system that shows objects of a namespace, such as
// sysfs or mqueue, in that namespace, which is of a kind of setns(2), and returns
// the detached mount. attrs are MOUNT_ATTR_* of mount_setattr(2).
func MountKernelFS(ns *os.File, kind int, fsType string, attrs uint64) (m *os.File, err error) {
	err = onDisposableThread(func() error {
		if err := unix.Setns(int(ns.Fd()), kind); err != nil {
			return fmt.Errorf("enter namespace %q: %w", ns.Name(), os.NewSyscallError("setns", err))
		}
		c, err := openFSContext(fsType)
		if err != nil {
			return err
		}
		defer c.close()
		if err := c.create(); err != nil {
			return err
		}
		m, err = c.mount(attrs)
		return err
	})
	return m, err
}
