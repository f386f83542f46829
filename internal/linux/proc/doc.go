// SPDX-License-Identifier: Apache-2.0

// Package proc identifies processes, so that no process is taken for another.
//
// The kernel gives a pid out again after its process has ended. An [ID] is a pid with the
// start time of its process, for files that outlive this process. A [Process] has a
// pidfd (Linux 5.3), by which signals are sent. Neither tells to which container the
// process belongs: package member proves that.
package proc
