// SPDX-License-Identifier: Apache-2.0

// Package rootfs builds the root file system of a container from layers whose ids are
// mapped.
//
// The kernel's rules about id-mapped mounts decide what the rest of the shim can
// promise, and they are few, exact and easy to get wrong. Two of them shape the code:
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
//
// Not here: which mode a container runs in and what to do when something is
// not possible (packages spec and stage), and who gets which range (package pool).
package rootfs
