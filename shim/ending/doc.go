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
package ending
