// SPDX-License-Identifier: Apache-2.0

// Package heal keeps the files of lxcfs in running containers in order when
// lxcfs dies and when it comes back.
//
// The mounts of a FUSE server outlive it, and then answer ENOTCONN: without help
// `free` and `top` fail in every container of the host for as long as it lives.
// A [Healer] reconciles: it compares what each mount namespace of a container should
// show with what it shows, and changes what differs. No mount of a dead server should
// be there, so that programs see the kernel's own files. Each place that is owed a file
// (places) should have one as soon as a server lives, also in a container that was made
// while there was none. A reconciliation that finds everything in order changes nothing,
// so it does not matter what caused it, or how often.
//
// What causes one (watch): a pidfd of each lxcfs tells its end, at no cost. The process
// is a hint and no proof, since a container can have a process of that name. So the
// server of each mount is asked. What counts is the answer ENOTCONN, or, after the end of
// the process, none: a child of it can hold its connection with the kernel for any time.
// A new server shows as a mount. For that mountinfo is polled, and only while a container
// is owed files: on a busy host mountinfo changes all the time. After a change the mounts
// get a moment to settle, so that an lxcfs that comes and goes does not keep the shim busy.
// Where other mounts change all the time, that moment becomes longer, and only the places
// where an lxcfs is expected are looked at meanwhile.
//
// A disposable child does all work in a container's mounts: a container can have a root,
// or a server of its own that calls itself lxcfs, that never answers, and SIGKILL does
// not end the wait. A child that is held up is left behind, at most one for each
// container. The container gets another chance later, and the others do not wait for it.
//
// A server that hangs (suspicion) is treated like a dead one, so that nobody waits who
// reads its files from then on. To ask it again and again would cost a process each
// time, in each shim. So signs are looked at that the kernel tells without asking: the
// state of the process, and how many requests of its connection have no answer. Only if
// they last, a child asks. A container's own server may hang as it likes.
//
// What the container did is not undone: a file that it unmounted does not come back, a
// file that it mounted something over is not touched, and files go only onto real procfs
// and sysfs. Inner containers and services have mount namespaces of their own, and some
// get nothing from the container's. Those are reconciled too.
//
// What does not belong here: finding out what lxcfs serves; the files of a container
// that starts.
package heal
