// SPDX-License-Identifier: Apache-2.0

// Package lookup opens paths of the host whose file system may never answer: a FUSE or
// network file system with a dead or hung server holds a system call up for ever, and
// SIGKILL does not end the call once the server has the request (fs/fuse/dev.c,
// request_wait_answer).
//
// [Cached] never waits, so this process calls it by itself. [Ask] may wait: it uses a
// process that can be left behind.
//
// For paths in a container's root see package openat.
package lookup
