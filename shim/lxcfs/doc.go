// SPDX-License-Identifier: Apache-2.0

// Package lxcfs fetches the files that a running lxcfs serves, as mounts that
// can be put over /proc and /sys of a container.
//
// lxcfs is a FUSE server, and FUSE has no time limit: a process that looks up a name
// or reads a byte waits for the server, and once the server has taken a request not
// even SIGKILL ends the wait. A shim that waits so is lost, and so are its containers.
// Therefore only a disposable child process touches paths on lxcfs. The child lists
// the tree, reads a little of each file (a server can be mounted and dead, or answer
// and refuse), clones the file's mount with open_tree(2) and passes the descriptor of
// the detached mount to the shim. The shim reads what the child sends with a deadline.
// A child that is late is killed and never waited for.
//
// The descriptors attach with move_mount(2), which needs no answer of the
// server. Runtimes do not see a path on lxcfs at all, which they would have to
// resolve, and some refuse /proc files in a spec.
//
// lxcfs is recognised by its superblock in mountinfo (fuse.lxcfs), never by a
// path: an empty /var/lib/lxcfs left by a package looks the same to stat(2).
//
// What does not belong here: attaching the files, watching lxcfs, starting it.
package lxcfs
