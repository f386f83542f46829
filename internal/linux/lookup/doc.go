// SPDX-License-Identifier: Apache-2.0

// Package lookup opens paths of the host whose file system may never answer: a
// FUSE or network file system with a dead or hung server holds a system call up for
// ever, and SIGKILL does not end it once the server has the request (fs/fuse/dev.c,
// request_wait_answer).
//
// What this process may do by itself is [Cached]: it never waits. For the rest there
// is [Ask], by a process that is left behind if it has to be.
//
// For paths in a container's root see package openat.
package lookup
