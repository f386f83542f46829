// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/thread"
)

// KernelFS mounts a file system that shows objects of a namespace, such as
// sysfs or mqueue, in that namespace, which is of a kind of setns(2), and returns
// the detached mount. attrs are MOUNT_ATTR_* of mount_setattr(2).
func KernelFS(ns *os.File, kind int, fsType string, attrs uint64) (m *os.File, err error) {
	err = thread.Run(func() error {
		if err := unix.Setns(int(ns.Fd()), kind); err != nil {
			return fmt.Errorf("enter namespace %q: %w", ns.Name(), os.NewSyscallError("setns", err))
		}
		c, err := OpenFS(fsType)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.Create(); err != nil {
			return err
		}
		m, err = c.Mount(attrs)
		return err
	})
	return m, err
}
