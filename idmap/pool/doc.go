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
//     /proc tells: whatever cgroup and pid namespace it is in, whatever state, and
//     whatever the files above say, if they are there at all.
//
// So a killed shim gives its range back at once, but not while something still runs
// with these ids.
//
// # When processes are looked at
//
// A look at all processes takes 8 ms with 300 of them and 140 ms with 5000. Few
// containers pay for it: the file "free" notes each slot that a look has proved free.
// The slot stays free until it is given out, since a process gets ids of a slot only
// with a lease. Giving out a proved range takes 0.1 ms, 0.4 at worst, beside 4000 held
// ones, which are not looked at. Ranges are given out in turn. The next look is due
// when no proved range is left: for the first container in a new directory (the
// machine has started, or somebody has removed the directory), and then once in a
// round of the pool.
//
// What a look proves: there was a moment at which every process that lived had been
// looked at (see [proc.Each]). A process that forks as fast as it can does not escape,
// since its child has its ids and its user namespace; nor does one that changes its
// cgroup, pid namespace or threads. A look does not see processes that this /proc does
// not show, which are those of another pid namespace on the same machine; a thread to
// which a program of the host has given other ids than to its process; and a process of
// the host that enters a user namespace later, by a descriptor that it has kept of one
// without processes.
//
// # Mappings of callers
//
// A caller that maps ids itself says which. [Pool.Adopt] holds them as a slot is
// held, by a lock on a file of the mapping, init and cgroups, so that no other
// container gets one of them. Processes are not looked at there: these ids may be
// in use outside of isolate, and the caller has to know that.
//
// # Files
//
// Slot files are never removed: two processes could hold locks on the old and
// on the new file of the same name. They are written in place for the same
// reason (a rename would put an unlocked file there), as lines that are only
// ever appended until the slot is given to the next one. A line a crash cut off
// is ignored, which is right at every point: the line that names the owner is
// written before the container exists, the line that names init is backed by
// the cgroups of the first and by the ids of its processes. A slot is noted as no
// more free before anything else is done with it.
//
// The directory is on tmpfs, rightly: after a reboot no process has any id, and
// what containers left on disk is owned by their own ids, not by the range. Where
// it is not (package chown), a range is no secret to keep: who has it next cannot
// reach those files, and they are moved before they are used again.
//
// Not here: what a range is used for (packages userns and rootfs) and when it is given back
// (shim/record).
package pool
