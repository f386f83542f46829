// SPDX-License-Identifier: Apache-2.0

// Package ending ends a container, whatever its root has done before.
//
// SIGKILL for the first process ends nearly every container in milliseconds. Those
// that it does not end are frozen or throttled, or have a process that waits for a FUSE
// server which never answers: an uninterruptible wait, of which the container's root may
// make as many as it likes, also for servers that are that very process. So ending
// is an escalation, and each step of it is taken only when the one before was not
// enough (see step):
//
//  1. SIGKILL for the first process, with which the kernel ends its pid namespace;
//     what is frozen is thawed.
//  2. SIGKILL for every process of its cgroups that is proved to be the
//     container's. A FUSE server among them ends those that wait for it. The limits
//     that the container has given groups of its own are lifted: a disk read at a
//     byte a second is not interrupted either.
//  3. The end of the FUSE connections that somebody waits in and that are the
//     container's (see foreign.go for how that is known).
//
// What is still there then waits for something of the host's or of another
// container's, which isolate does not touch: one line in the log names it, and the
// same is tried from time to time.
//
// containerd gives `delete` 5 s. Some containers take longer: tens of thousands of
// cgroups, on a busy machine, or a process that waits for the host's disk. So `delete`
// writes a note first (record.Unfinished), and each shim that makes a container looks
// at the notes and finishes one after the other, in the background (Sweep). There is
// no daemon for it, and no process of its own: shims start anyway, they live long
// enough, nobody waits for them as for `delete` and `start`, and only a further
// container can need what is left. While there are no notes that costs one look at a
// directory that does not exist.
package ending
