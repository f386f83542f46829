// SPDX-License-Identifier: Apache-2.0

// Package fusectl ends FUSE connections (Documentation/filesystems/fuse.rst,
// "Control filesystem").
//
// A process whose request a FUSE server has taken waits for the answer, whatever
// signal it gets (fs/fuse/dev.c: request_wait_answer). If the server never answers,
// and is perhaps that very process, only the end of the connection ends it.
package fusectl
