// SPDX-License-Identifier: Apache-2.0

package lxcfs

import (
	"errors"
	"fmt"
	"time"
)

// Why lxcfs has no files for containers. Match with errors.Is; the errors that wrap
// these tell an administrator what to do.
var (
	// ErrOff means lxcfs.mode = "off".
	ErrOff = errors.New("lxcfs is switched off")
	// ErrAbsent means that no lxcfs is mounted, or not where it should be.
	ErrAbsent = errors.New("lxcfs is not running")
	// ErrDead means that the mount has outlived its server.
	ErrDead = errors.New("lxcfs has died")
	// ErrHung means that lxcfs did not answer in time.
	ErrHung = errors.New("lxcfs does not answer")
	// errRefused means that lxcfs answers with errors only.
	errRefused = errors.New("lxcfs refuses access")
)

// Options make lxcfs show the load average (-l) and the CPU quota and not only the cpuset
// (--enable-cfs); --enable-pidfd saves it a search for each read.
const Options = "-l --enable-cfs --enable-pidfd"

const command = "lxcfs " + Options

func absent(detail string) error {
	return fmt.Errorf("%w: %s; install it and start it (%s /var/lib/lxcfs), or set lxcfs.mode = \"off\"", ErrAbsent, detail, command)
}

func dead(root string, cause error) error {
	return fmt.Errorf("%w and left its mount on %q (%w); unmount that (umount -l %s) and start lxcfs again (%s)", ErrDead, root, cause, root, command)
}

func hung(root string, limit time.Duration) error {
	return fmt.Errorf("%w on %q within %v; it is stopped or stuck: restart it, or raise lxcfs.timeout_ms if this host is only slow", ErrHung, root, limit)
}

// unsupported is what lxcfs 7 does with cgroup version 1: its library does not start
// (cgfsng_ops_init), and it answers EIO for every directory.
func unsupported(root string, cause error) error {
	return fmt.Errorf("%w on %q (%w); lxcfs 7 does so on a host with cgroup version 1: install lxcfs 5 or 6, or boot with cgroup version 2 only (systemd.unified_cgroup_hierarchy=1)", errRefused, root, cause)
}

func refused(root string, cause error) error {
	return fmt.Errorf("%w on %q (%w); lxcfs 6 does so if it cannot read /proc/1/personality: run it in the host's pid namespace with all privileges (%s)", errRefused, root, cause, command)
}
