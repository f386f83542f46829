// SPDX-License-Identifier: Apache-2.0

// Package fusectl ends FUSE connections, and counts the requests that wait for an answer
// (Documentation/filesystems/fuse.rst, "Control filesystem").
//
// A process whose request a FUSE server has taken waits for the answer, and no signal
// ends the wait (fs/fuse/dev.c: request_wait_answer). If the server never answers, as
// when it is that very process, only the end of the connection ends the wait.
package fusectl
