// SPDX-License-Identifier: Apache-2.0

// Package exhausted finds out which limit of the host is reached.
package exhausted

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isolate-shim/isolate/internal/linux/fork"
	"github.com/isolate-shim/isolate/internal/linux/mount"
)

// namespaceLimits are the sysctls that limit each kind of namespace. The kernel says
// "no space left on device" for all of them (namespaces(7)), whoever asks.
var namespaceLimits = []struct {
	flag   uint64
	sysctl string
}{
	{unix.CLONE_NEWUSER, "user.max_user_namespaces"},
	{unix.CLONE_NEWNS, "user.max_mnt_namespaces"},
	{unix.CLONE_NEWPID, "user.max_pid_namespaces"},
	{unix.CLONE_NEWNET, "user.max_net_namespaces"},
	{unix.CLONE_NEWIPC, "user.max_ipc_namespaces"},
	{unix.CLONE_NEWUTS, "user.max_uts_namespaces"},
	{unix.CLONE_NEWCGROUP, "user.max_cgroup_namespaces"},
}

// Explain adds to an error by which something has failed for want of space
// the limits that are reached of namespaces and of mounts, found by making one of
// each kind. An error of another cause is returned as it is.
func Explain(err error) error {
	if err == nil || !strings.Contains(strings.ToLower(err.Error()), unix.ENOSPC.Error()) {
		return err
	}
	var reached []string
	for _, limit := range namespaceLimits {
		if exhausted(limit.flag) {
			reached = append(reached, limit.sysctl)
		}
	}
	if noMoreMounts() {
		reached = append(reached, "fs.mount-max")
	}
	if len(reached) == 0 {
		return err
	}
	return fmt.Errorf("a limit of the host is reached: raise %s (sysctl): %w", strings.Join(reached, ", "), err)
}

// noMoreMounts tells whether a mount namespace like this one can take no mount more.
func noMoreMounts() bool {
	made := false
	err := mount.InPrivate(func() error {
		made = true
		return unix.Mount("tmpfs", "/", "tmpfs", 0, "size=4k")
	})
	return made && errors.Is(err, unix.ENOSPC)
}

// exhausted tells whether no more namespaces of a kind can be made.
func exhausted(flag uint64) bool {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child, err := fork.Idle(flag)
	if err != nil {
		return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS)
	}
	// It is gone with this thread at the latest.
	_ = child.End()
	return false
}
