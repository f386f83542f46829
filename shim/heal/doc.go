// SPDX-License-Identifier: Apache-2.0

// Package heal keeps the files of lxcfs in running containers in order when
// lxcfs dies and when it comes back.
//
// The mounts of a FUSE server outlive it, and then answer ENOTCONN: without help
// `free` and `top` fail in every container of the host for as long as it lives.
// A [Healer] watches the server. When it has died, the dead mounts are detached,
// so that programs see the kernel's own files; when there is a new server, its
// files are put in their place, also in containers that were made meanwhile.
//
// How it is seen. A pidfd of each lxcfs tells its end, at no cost. A process is
// a hint and no proof, since a container can have one of that name: what is dead
// is found out by asking the server of each mount, in a disposable process (see
// package lxcfs), and only ENOTCONN counts. A new server shows as a mount, for
// which mountinfo is polled, and only while a container lacks files: on a busy
// host it changes all the time.
//
// Whatever is looked up or changed in a container's mounts, a disposable child does:
// a container can have a root on which every look-up waits for a server of its own,
// and SIGKILL does not end that. A child that is held up is left behind, one of a
// container at a time; the container gets another chance later, and the others do
// not wait for it.
//
// A server that hangs (SIGSTOP) is left alone. It cannot be seen without asking
// it again and again, it may go on at any time, and whoever reads its files then
// gets what they waited for. If it is killed, that is seen.
//
// What the container did is not undone: a file that it unmounted does not come
// back, one that it mounted something over is not touched, and files go only onto
// real procfs and sysfs. Inner containers and services have mount namespaces of
// their own, and some get nothing from the container's. Those are healed too.
//
// What does not belong here: finding out what lxcfs serves; the files at the start
// of a container.
package heal
