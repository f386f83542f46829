// SPDX-License-Identifier: Apache-2.0

// Package cgroup hands a container's own control groups to the container's
// root, between the runtime's create and start.
//
// Why it exists: dockerd, podman, systemd and the kubelet inside a container
// make sub-groups. Stock runc lets them only with the systemd driver on cgroup v2,
// crun only on v2, and neither does on v1. Only the directory and the files by which
// processes and children are managed are given away (cgroups(7), "Cgroups
// delegation"). The host's root keeps the limits, so the container can divide what it
// has and never enlarge it.
//
// A wrong directory would be worse than none. So a cgroup is handed over only if the
// container's process is in it and no process of another user namespace is, if it has
// no children of another owner, and if it is not the root of a mount. Directories are
// opened once, without following links or crossing mounts, and changed by file
// descriptor.
//
// On a pure v2 container, a group that has processes cannot enable controllers for its
// children. Entry points of images work around that: they move their processes to a
// child group first. [Delegate] can do this for them: it puts the init process into a
// leaf and enables the controllers. runc (since 1.0) and crun put programs that are
// executed later into init's group when the container's own refuses them with EBUSY.
//
// The machine's console is also denied to the group, because crun allows it to every
// container: on v1 by a rule, on v2 by a program beside the runtime's.
//
// A container's CPU quota is repeated in the groups of containers inside, since lxcfs
// before version 7 does not look above the reader's own group (see [Shared]).
//
// Not here: creating cgroups and limits (the OCI runtime), removing them (the
// runtime; shim/record when the runtime is gone).
package cgroup
