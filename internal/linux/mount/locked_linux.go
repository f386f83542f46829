// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/fork"
	"github.com/isolate-shim/isolate/internal/linux/thread"
	"github.com/isolate-shim/isolate/internal/linux/userns"
)

// LockedClones returns clones of the trees mounted at paths whose flags
// (read-only, nosuid, nodev, noexec) nobody can take away any more, in whatever
// mount namespace they end up.
//
// The kernel locks the flags of mounts when it copies a mount namespace for
// another user namespace (mount_namespaces(7); lock_mnt_tree in fs/namespace.c),
// and clones keep the lock. A runtime that clones volumes in the host's mount
// namespace and moves them into the container's (crun) never comes past that
// place, so it is visited here: the clones are taken in the mount namespace of a
// child with a user namespace of its own.
//
// The paths must be seen from the caller's mount namespace. Its whole mount
// table is copied for a moment.
func LockedClones(paths []string) ([]*os.File, error) {
	var clones []*os.File
	err := thread.Run(func() (err error) {
		child, err := fork.Idle(unix.CLONE_NEWUSER | unix.CLONE_NEWNS)
		if err != nil {
			return userns.Explain(err)
		}
		defer func() { err = errors.Join(err, child.End()) }()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := unix.Setns(child.PIDFD(), unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("setns", err)
		}
		for _, path := range paths {
			clone, err := openTree(-1, path, path, true)
			if err != nil {
				return fmt.Errorf("clone mount %q: %w", path, err)
			}
			clones = append(clones, clone)
		}
		return nil
	})
	if err != nil {
		for _, c := range clones {
			err = errors.Join(err, c.Close())
		}
		return nil, fmt.Errorf("lock flags of mounts: %w", err)
	}
	return clones, nil
}
