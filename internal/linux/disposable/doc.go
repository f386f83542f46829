// SPDX-License-Identifier: Apache-2.0

// Package disposable starts processes that may wait in the kernel for ever, so that
// this process need not: SIGKILL does not end a system call that a FUSE server has to
// answer once the server has the request (fs/fuse/dev.c, request_wait_answer).
//
// A [Child] is this very program under another argv[0], which main has to look at
// first. The child has no descriptors except the ones that it was given. So a child that
// is left behind keeps no lock, socket or file system of its parent. It answers over a
// socket.
package disposable
