// SPDX-License-Identifier: Apache-2.0

// Package proc identifies processes, so that no process is taken for another.
//
// A pid is a number that the kernel gives out again. An [ID] is a pid with its
// start time, for files that outlive this process; a [Process] is held by a pidfd
// (Linux 5.3), for everything that is done to it. Neither says whose the process
// is: package member proves that.
package proc
