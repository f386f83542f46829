// SPDX-License-Identifier: Apache-2.0

// Package idmap knows the ids of the host and those of a container: the mappings
// between them, the user namespaces that carry mappings, id-mapped clones of mounts,
// and the root file system that is built from such clones.
//
// Why a package of its own: the kernel's rules about id-mapped mounts decide
// what the rest of the shim can promise, and they are few, exact and easy to
// get wrong. Three of them shape the code:
//
//   - A mount can be id-mapped once, before it was ever attached
//     (mount_setattr(2)). So clones are made detached and handed on as file
//     descriptors; nothing is left behind when a process dies half way.
//   - The overlay file system creates whiteouts, its work directory and
//     copied-up inodes with the credentials of whoever created the superblock
//     (fs/overlayfs/super.c: prepare_creds). With an id-mapped upper layer these
//     credentials must be ids that the mapping can express: the container's
//     root. Otherwise the kernel mounts it silently read-only (EOVERFLOW).
//     With them, everything on disk stays owned by the container's own ids, so
//     that commit, diff and a restart with another range need no chown.
//   - Credentials, root directory and mount namespace belong to a thread. Work
//     under foreign ones runs on a thread that is thrown away (see thread).
//
// Support is found by trying, never by comparing versions: vendors backport
// both features and their reverts. Kernel versions appear in messages only.
//
// Not here: which mode a container runs in and what to do when something is
// not possible (spec, shim/stage), and who gets which range (idmap/pool).
package idmap
