// SPDX-License-Identifier: Apache-2.0

// Package pool gives each container a range of host ids that no other container
// has, without a daemon.
//
// Each 65536-aligned range, a slot, has a file in a directory below /run. Three
// things keep a slot busy, and it is free only without all of them:
//
//   - the file's lock (flock(2)), held by the living shim: a shared one, since
//     containers of one pod may share a range, where giving a slot away takes an
//     exclusive one. The kernel drops it when the shim dies, however that
//     happens;
//   - the container's init process, recorded with its start time, so that a
//     reused pid is not taken for it;
//   - the container's cgroups, recorded too: a process that outlived init.
//
// So a killed shim gives its range back at once, but not while something still
// runs with these ids.
//
// Slot files are never removed: two processes could hold locks on the old and
// on the new file of the same name. They are written in place for the same
// reason (a rename would put an unlocked file there), as lines that are only
// ever appended until the slot is given to the next one. A line a crash cut off
// is ignored, which is right at every point: the line that names the owner is
// written before the container exists, the line that names init is backed by
// the cgroups of the first.
//
// The directory is on tmpfs, rightly: after a reboot no process has any id, and
// what containers left on disk is owned by their own ids, not by the range. Where
// it is not (package chown), a range is no secret to keep: who has it next cannot
// reach those files, and they are moved before they are used again.
//
// Not here: what a range is used for (package idmap) and when it is given back
// (shim/record).
package pool
