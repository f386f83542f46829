// SPDX-License-Identifier: Apache-2.0

// Package exhausted finds out which limit of the host is reached.
package exhausted

import (
	"errors"
	"fmt"
	"os"
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

// symptoms are the errors by which limits show, and what finds out which one it is.
var symptoms = []struct {
	errno   unix.Errno
	reached func() string
}{
	{unix.ENOSPC, spaces},
	{unix.EAGAIN, func() string { return tasks("/") }},
	{unix.EMFILE, descriptors},
}

// Explain adds to an error by which something has failed the limits of the host that are
// reached, as far as such an error comes from them: of namespaces and of mounts, found by
// making one of each kind, of processes, and of this process's descriptors. An error of
// another cause is returned as it is.
func Explain(err error) error {
	if err == nil {
		return nil
	}
	text := strings.ToLower(err.Error()) // a runtime in C says it otherwise than Go
	for _, s := range symptoms {
		if !strings.Contains(text, s.errno.Error()) {
			continue
		}
		if raise := s.reached(); raise != "" {
			return fmt.Errorf("a limit of the host is reached: raise %s: %w", raise, err)
		}
	}
	return err
}

// spaces names the limits of namespaces and mounts that are reached.
func spaces() string {
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
		return ""
	}
	return strings.Join(reached, ", ") + " (sysctl)"
}

// room is how many open files less than the limit count as reached: those for which there
// was no room are closed again.
const room = 64

// descriptors names the limit of this process's open files if it is reached.
func descriptors() string {
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) // it cannot fail
	open, err := os.ReadDir("/proc/self/fd")
	if !errors.Is(err, unix.EMFILE) && uint64(len(open))+room < limit.Cur {
		return ""
	}
	return fmt.Sprintf("LimitNOFILE of containerd's unit, which allows the shim %d open files", limit.Cur)
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
