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
// How the death of a server is noticed: a pidfd of each lxcfs tells its end, at no
// cost. The process is a hint and no proof, since a container can have a process of
// that name. So a disposable process asks the server of each mount (see package
// lxcfs), and only the answer ENOTCONN counts. A new server shows as a mount. For that
// mountinfo is polled, and only while a container lacks files: on a busy host
// mountinfo changes all the time.
//
// A disposable child does all work in a container's mounts: a container can have a
// root on which every look-up waits for a server of its own, and SIGKILL does not end
// that. A child that is held up is left behind, at most one for each container. The
// container gets another chance later, and the others do not wait for it.
//
// A server that hangs (SIGSTOP) is left alone. To notice it one would have to ask it
// again and again. It may go on at any time, and then its readers get what they waited
// for. If it is killed, that is noticed.
//
// What the container did is not undone: a file that it unmounted does not come
// back, one that it mounted something over is not touched, and files go only onto
// real procfs and sysfs. Inner containers and services have mount namespaces of
// their own, and some get nothing from the container's. Those are healed too.
//
// What does not belong here: finding out what lxcfs serves; the files at the start
// of a container.
package heal
