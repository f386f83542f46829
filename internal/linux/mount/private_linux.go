// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/thread"
)

// InPrivate runs fn on a disposable thread in a mount namespace of its
// own, which vanishes afterwards with everything fn mounted.
//
// The mounts are made slaves, not private: what the host unmounts meanwhile
// goes away here too, and nothing made here reaches the host. The thread returns
// to where it came from before it ends, so that the namespace is gone when
// InPrivate returns and not some time later.
func InPrivate(fn func() error) error {
	return thread.Run(func() (retErr error) {
		home, err := os.Open("/proc/thread-self/ns/mnt")
		if err != nil {
			return err
		}
		defer home.Close()
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make a private mount namespace: %w", os.NewSyscallError("unshare", err))
		}
		defer func() {
			if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNS); err != nil {
				retErr = errors.Join(retErr, fmt.Errorf("leave private mount namespace: %w", err))
			}
		}()
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return fmt.Errorf("make mounts slaves: %w", os.NewSyscallError("mount", err))
		}
		return fn()
	})
}
