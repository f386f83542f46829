// SPDX-License-Identifier: Apache-2.0

// Package mount clones, maps, attaches and replaces mounts by the system calls that
// take descriptors: open_tree(2), mount_setattr(2), move_mount(2), fsopen(2).
//
// Clones are made detached: closing the descriptor of one that was not attached makes
// it vanish, so nothing is left behind when a process dies half way. What needs a
// mount namespace is done on a thread of its own that is thrown away.
//
// Support is found by trying, never by comparing versions; see package feature.
package mount
