// SPDX-License-Identifier: Apache-2.0

// Package pool gives each container a range of host ids that no other container
// has, without a daemon.
//
// # What keeps a range
//
// Each 65536-aligned range, a slot, has a file in a directory below /run. A slot is
// free only without all of these:
//
//   - the file's lock (flock(2)), held by the living shim: a shared one, since
//     containers of one pod may share a range, where giving a slot away takes an
//     exclusive one. The kernel drops it when the shim dies, however that happens;
//   - the container's init process, recorded with its start time, so that a reused
//     pid is not taken for it. It lives while a thread of it does;
//   - the container's cgroups, recorded too;
//   - a process that has an id of the slot, or whose user namespace maps one, as
//     /proc tells. Its cgroup, pid namespace and state do not matter, nor what the
//     files above say, nor whether they exist.
//
// So a killed shim gives its range back at once, but not while something still runs
// with these ids. What the file says of such a container is cleared when the container
// is cleaned up ([Forget]), since a later container may have the same cgroups.
//
// # When processes are looked at
//
// A look at all processes takes 8 ms with 300 of them and 140 ms with 5000. Few
// containers pay for it: the file "free" notes each slot that a look has proved free.
// The slot stays free until it is given out, since a process gets ids of a slot only
// with a lease. Giving out a proved range beside 4000 held ones takes 0.1 ms, at worst
// 0.4 ms; the held ones are not looked at. Ranges are given out in turn. The next look
// is due when no proved range is left: for the first container in a new directory
// (after a start of the machine or a removal of the directory), and then once for each
// round of the pool.
//
// What a look proves: there was a moment at which every process that lived had been
// looked at (see [proc.Each]). A process that forks as fast as it can does not escape,
// since its child has its ids and its user namespace; nor does one that changes its
// cgroup, pid namespace or threads. A look does not see three things: a process that
// this /proc does not show, since its pid namespace is neither this one nor below it;
// a thread to which a program of the host has given other ids than to its process; and
// a process of the host that later enters a user namespace without processes, of which
// it has kept a descriptor.
//
// # Mappings of callers
//
// A caller that maps ids itself says which. [Pool.Adopt] holds them as a slot is
// held, by a lock on a file of the mapping, init and cgroups, so that no other
// container gets one of them. Of the pool's own ids it gives only free ones. Who else
// has other ids is not looked at: they may be in use outside of isolate, and the caller
// has to know that.
//
// # Files
//
// Slot files are never removed: two processes could hold locks on the old and
// on the new file of the same name. They are written in place for the same
// reason: a rename would put an unlocked file there. Lines are only appended until
// the slot is given back, or to the next owner. A line that a crash has cut off is ignored,
// which is right for every line: the owner's is written before the container exists,
// and what init's would keep is also kept by the owner's cgroups and by the ids of the
// processes. The file "free" loses a slot before anything else is done with it.
//
// The directory is on tmpfs, rightly: after a reboot no process has any id, and the
// files that containers have left on disk are owned by ids inside of the container and
// not by the range. Package chown is the exception: it leaves files with ids of the
// range. The next owner of the range cannot reach those files, and chown moves them
// before they are used again.
//
// Not here: what a range is used for (packages userns and rootfs) and when it is given back
// (shim/record).
package pool
