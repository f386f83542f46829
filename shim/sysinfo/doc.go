// SPDX-License-Identifier: Apache-2.0

// Package sysinfo computes what sysinfo(2) is to tell a process of a container: the
// same as the files of lxcfs tell it. Programs that do not read files ask the kernel so:
// free and uptime of busybox, getloadavg of musl, sysconf(_SC_PHYS_PAGES) of glibc before
// 2.37, hence sort, PostgreSQL and Python.
//
// The values come from the control group that lxcfs takes too, that of the first process
// of the caller's pid namespace, by the formulas of its src/proc_fuse.c. They do not come
// from lxcfs, which could hold up who asks: neither procfs nor cgroupfs waits for
// anybody. A container inside another has a pid namespace and a group of its own, and so
// gets its own limits. The load averages are estimates: lxcfs counts threads every five
// seconds from the first time that somebody asks, this package only when somebody does.
//
// Not here: how the answer reaches the caller (shim/notify).
package sysinfo
