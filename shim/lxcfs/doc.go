// SPDX-License-Identifier: Apache-2.0

// Package lxcfs gets the files that a running lxcfs serves, as mounts that can be put
// over /proc and /sys of a container.
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
// move_mount(2) attaches the descriptors, and needs no answer of the server for it. OCI
// runtimes never see a path on lxcfs: they would have to resolve it, and some refuse
// files of /proc in a spec.
//
// lxcfs is recognised by its superblock in mountinfo (fuse.lxcfs), never by a
// path: to stat(2) an empty /var/lib/lxcfs that a package has left looks the same.
//
// What does not belong here: attaching the files, watching lxcfs, starting it.
package lxcfs
