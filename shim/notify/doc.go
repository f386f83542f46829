// SPDX-License-Identifier: Apache-2.0

// Package notify shows the limits of a container to the containers inside it.
//
// An inner runtime mounts a fresh /proc for its container, without the files of
// lxcfs that cover the outer one's. The one system call that every runtime makes
// once after that is pivot_root. The outer container's seccomp profile reports it
// (SECCOMP_RET_USER_NOTIF, seccomp_unotify(2)); the shim puts the files over the
// new /proc and lets the call go on (SECCOMP_USER_NOTIF_FLAG_CONTINUE). No other
// call is trapped, none is emulated and no permission depends on it, so it does
// not matter that the container can change arguments and mounts meanwhile.
//
// What the container controls, it controls here too: the argument's memory (it
// can be on a FUSE file of its own, or behind userfaultfd), the path, the mounts
// on it. Therefore everything after opening /proc/TID is done by a process that
// is thrown away (see child): it enters the user namespace that owns the
// caller's mount namespace, since a FUSE root file system of rootless podman is
// closed to others, and with it every right on the host is gone. It attaches
// files only onto real procfs and sysfs, without following links, inside that
// mount namespace. The worst a container can get is a wrong view of its own.
//
// Time is bounded: after [Limit] the call goes on, whatever became of the rest;
// a stuck process is killed and not waited for; the number of them and the rate
// are limited.
//
// The descriptor of a listener is never given up while a process has the filter:
// with it would go pivot_root in the whole container, for good (ENOSYS).
//
// Known edges: the kernel allows one listener in a chain of filters, so programs
// inside that want one get EBUSY, and [Profile] gives way to a caller's own. When
// the shim dies, pivot_root fails with ENOSYS in what is left of the container,
// which containerd ends then; while it is stopped (SIGSTOP), pivot_root waits.
//
// Not here: finding lxcfs and its files (shim/lxcfs), the container's own /proc.
package notify
