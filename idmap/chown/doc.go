// SPDX-License-Identifier: Apache-2.0

// Package chown is the fallback for root file systems that cannot be mounted
// with an id mapping: it shifts the ids on disk, once, to where a container's
// user namespace has them, and back.
//
// What the kernel does by itself for a mapped mount has to be done here one by
// one: owners, set-user-id bits and file capabilities, which a chown takes away,
// the ids in ACLs and in the capabilities of a user namespace. A hard link must
// stay one, which on an overlay without an index (as containerd and Docker mount
// theirs) it does not: the chown of one name gives that name a copy of its own.
//
// # Interrupted at any point
//
// An inode whose owner is in the target range is done, so an inode that needs
// nothing but a chown can be left at any moment. All others, some dozens of an
// image, are not touched by the walk but collected, as they are on disk, into a
// journal. When that is on disk, they are changed, each step of which may be
// repeated; a later run begins with the journal of the one before. The state
// names every range that ids on disk may be in, the target before the first
// inode is moved there, so that the next run may have any other target.
//
// # Where the state is
//
// In files below /var/lib/isolate/chown, by the path of the snapshot, with its
// inode number and time of birth, which tell it from a later directory of the same
// name. An extended attribute of the snapshot would move with the snapshot. But the
// file systems that need this package often have no attributes; a journal does not
// fit into one; and an image can bring attributes along, even in the name space
// "trusted" (containerd before 2.2 applies them, and its native snapshotter copies
// them into each child), so an attribute could not be believed. The files are in no
// layer, no commit and no container.
//
// A power failure may undo chowns that were not on disk yet. What was collected
// is synced before the run counts as complete; for the rest, the first start
// after a reboot looks at every inode once more, which is quick when all are
// done.
//
// # Ranges
//
// The ids stay shifted when the container ends: moving them back would cost each
// container that is deleted for good the same time again. So the next start of
// the snapshot asks for the same range and has nothing to do if that is free,
// and moves the ids to another one if not. In between another container may have the
// range. That is no danger: the files are in a directory that only the host's root
// can pass, and they are moved before they are used.
//
// Not here: mounting what is walked, and when to do it (shim/stage).
package chown
