// SPDX-License-Identifier: Apache-2.0

// Package notify shows the limits of a container to the containers inside it.
//
// An inner runtime mounts a fresh /proc for its container, without the files of
// lxcfs that cover the outer one's. The one system call that every runtime makes
// once after that is pivot_root. The outer container's seccomp profile reports it
// (SECCOMP_RET_USER_NOTIF, seccomp_unotify(2)). The shim puts the files over the new
// /proc and lets the call go on (SECCOMP_USER_NOTIF_FLAG_CONTINUE). No permission depends
// on it. So it does not matter that the container can change arguments and mounts at the
// same time.
//
// sysinfo(2) is reported too, for programs that do not read files, and answered by
// shim/sysinfo's values, or goes on like the other. The answer is written through a
// descriptor of the caller's memory, opened while the caller was proved to wait, by a
// process that can be thrown away (see scribe).
//
// mount(2) without flags is reported, as programs mount overlays. What is no overlay goes
// on at once; for one, the caller of [Listen] has time until [Limit] to make that possible
// (shim/arrival). No other call is trapped.
//
// The container controls the memory of the argument (it can be on a FUSE file of the
// container, or behind userfaultfd), the path, and the mounts on it. Therefore a
// process that is thrown away does everything after opening /proc/TID (see child). It
// enters the user namespace that owns the caller's mount namespace, since a FUSE root
// file system of rootless podman is closed to others; with that it loses every right on
// the host. It attaches files only onto real procfs and sysfs, without following links,
// inside that mount namespace. The worst that a container can do is to give itself a
// wrong view.
//
// Time is bounded: after [Limit] the call goes on, with or without the files. A stuck
// process is killed and not waited for. The number of such processes and the rate of
// calls are limited.
//
// The descriptor of a listener is never given up while a process has the filter:
// without it these calls would fail in the whole container, for good (ENOSYS).
//
// Known edges: the kernel allows one listener in a chain of filters. So a program
// inside that wants one gets EBUSY, and [Profile] leaves a profile that has its own. If
// the shim dies, these calls fail with ENOSYS in the rest of the container, which
// containerd then ends. While the shim is stopped (SIGSTOP), they wait.
//
// Not here: finding lxcfs and its files (shim/lxcfs), the container's own /proc, what
// sysinfo(2) is to tell (shim/sysinfo).
package notify
