// SPDX-License-Identifier: Apache-2.0

// Package ending ends a container whose root may have done anything to prevent it.
//
// SIGKILL for the first process ends nearly every container in milliseconds. It does
// not end a container that is frozen or throttled, or that has a process which waits
// for a FUSE server that never answers. Such a wait is uninterruptible, the container's
// root can make any number of them, and the server can be the waiting process itself.
// So ending is an escalation. Each step is taken only when the one before was not
// enough (see step):
//
//  1. SIGKILL for the first process. With it the kernel ends its pid namespace.
//     Frozen groups are thawed.
//  2. SIGKILL for every process in the container's cgroups that is proved to be the
//     container's. If a FUSE server is among them, the processes that wait for it go
//     on. The limits that the container has given groups of its own are lifted: a disk
//     read at a byte a second is not interrupted either.
//  3. The container's FUSE connections in which a process waits are ended (foreign.go
//     says how they are known).
//
// A process that is still there then waits for something of the host or of another
// container, which isolate does not touch. One line in the log names it, and the steps
// are repeated from time to time.
//
// containerd gives `delete` 5 s. Some containers take longer: with tens of thousands
// of cgroups on a busy machine, or with a process that waits for the host's disk. So
// `delete` writes a note first (record.Unfinished). Each shim that makes a container
// looks at the notes and finishes those containers in the background, one after the
// other (Sweep). No daemon is needed: shims start anyway, they live long enough,
// containerd does not wait for them as it waits for `delete` and `start`, and only a
// later container can need what is left. Without notes this costs one look at a
// directory that does not exist.
package ending
