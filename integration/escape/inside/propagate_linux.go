// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// propagate mounts and unmounts wherever the host, or what serves it, might see
// it. The test compares the host's mounts.
func propagate(facts) {
	must(os.MkdirAll(scratch, 0o700))
	must(os.WriteFile(scratch+"/file", []byte("escaped"), 0o644))
	try("share:/", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") })
	for _, dir := range []string{
		"/mnt", "/run", "/vol/ro", "/vol/rw/sub", "/vol/slave/sub", "/vol/shared/sub", "/dev/.lxc/proc", "/dev/.lxc/sys", "/dev/.lxc",
		"/dev/net", "/dev/shm", "/sys/fs/cgroup/memory", "/sys/fs/cgroup", "/proc/sys/kernel",
	} {
		try("mount:"+dir, func() error { return unix.Mount("escape", dir, "tmpfs", 0, "size=4k") })
	}
	for _, file := range []string{"/proc/meminfo", "/proc/uptime", "/dev/null", "/dev/fuse", "/dev/kmsg", "/vol/file", "/etc/hostname"} {
		try("bind:"+file, func() error { return unix.Mount(scratch+"/file", file, "", unix.MS_BIND, "") })
		try("unbind:"+file, func() error { return unix.Unmount(file, unix.MNT_DETACH) })
	}
	// Once more: what the runtime, or the shim, has put there.
	for _, path := range []string{"/proc/meminfo", "/dev/null", "/dev/fuse", "/vol/slave/sub", "/vol/shared/sub", "/vol/slave", "/vol/shared", "/dev/.lxc"} {
		try("unmount:"+path, func() error { return unix.Unmount(path, unix.MNT_DETACH) })
	}
	// A second root, as an inner container has it.
	try("pivot_root", func() error {
		dir := mountPoint()
		if err := unix.Mount("/", dir, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		if err := unix.Mount("escape", dir+"/mnt", "tmpfs", 0, "size=4k"); err != nil {
			return err
		}
		return unix.Unmount(dir, unix.MNT_DETACH)
	})
}
