// SPDX-License-Identifier: Apache-2.0

// Package cgroup hands a container's own control groups to the container's
// root, between the runtime's create and start.
//
// Why it exists: dockerd, podman, systemd and the kubelet inside a container
// make sub-groups. Stock runc gives them the right only with the systemd driver
// on cgroup v2, crun only on v2, and neither does on v1. What may be given away is
// exact: the directory and the files by which processes and children are
// managed (cgroups(7), "Cgroups delegation"). The limits stay owned by the
// host's root, so the container can divide what it has and never enlarge it.
//
// A wrong directory would be worse than none: so a cgroup is handed over only
// if the container's process is in it, nobody else is, it has no children of
// somebody else, and it is not the root of what this host shows. Directories are
// opened once, without following links or crossing mounts, and changed by file
// descriptor.
//
// On a pure v2 container the kernel's rule against internal processes (a group
// that has processes cannot enable controllers for its children) would force a
// trick on every entry point. So [Delegate] can also put the init process into a
// leaf and enable the controllers, as that trick does. Programs that are
// executed later are put by runc (since 1.0) and by crun into init's group when
// the container's own refuses them with EBUSY.
//
// The machine's console is denied to the group as well, because crun allows it to
// every container: on v1 by a rule, on v2 by a program beside the runtime's.
//
// Not here: creating cgroups and limits (the OCI runtime), removing them (the
// runtime; shim/record when the runtime is gone).
package cgroup
