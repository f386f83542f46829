// SPDX-License-Identifier: Apache-2.0

// Package visit settles what the host's programs write into a running container.
//
// docker cp, docker export and all clients of those calls have dockerd enter the rootfs:
// a thread of it makes a directory there, pivots into it, does its work as the host's
// root, and ends. On the layers the host's ids have numbers of their own
// ([idmap.HostOnDisk]), so that this works, and what was copied in shows as nobody's in
// the container. When the thread has ended, the owners become those that were meant.
//
// A container can make such directories too. Each costs a look at the host's threads and a
// walk through its upper layer, which together take at most a tenth of a processor.
//
// Not here: the change of owners (package chown), and what is left to be changed when the
// container has ended (package ending).
package visit
