// SPDX-License-Identifier: Apache-2.0

// Package arrival gives programs that come into a running container the stores that they
// would have had from the start.
//
// The stores of programs that an image has are made with the container (shim/stage). Those
// of others are not: a directory in the upper layer would be in every commit. So the shim
// watches the directories of programs by inotify, which costs nothing for what is done
// elsewhere, and when dockerd, containerd, podman or another one arrives there, its store is
// attached in the container. A package manager needs longer to start a program than that
// takes. What the program, or its package, has in the store by then is there afterwards too,
// since a store is the same directory on disk.
//
// A container can make such files in a loop. The shim spends a tenth of a processor at most
// on that, and attaches each store once.
//
// Programs that nobody saw arrive, and stores elsewhere (dockerd --data-root), get theirs when
// they mount an overlay: the notifier tells of that before it happens (see [Container.Shelve]).
// A directory that is in the image too is left alone, since all that is in it would have to be
// copied, and the log says so.
//
// Not here: how a store is made (shim/stage), and how a mount is noticed (shim/notify).
package arrival
