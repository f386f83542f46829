// SPDX-License-Identifier: Apache-2.0

// Package record writes down what was done for a container, and undoes it.
//
// A record is written before the first thing it names exists, so that cleanup
// needs nothing but the record: the shim may have been killed, containerd may
// have been restarted. Cleanup is idempotent and goes on after errors. State
// lives on a tmpfs (/run/isolate): a reboot clears it, and rightly, since
// nothing that a record names survives one either.
//
// Layout:
//
//	/run/isolate/<namespace>/<id>/record.json
//	/run/isolate/<namespace>/<id>/stage        a tmpfs of the container's, gone after create
//	/run/isolate/<namespace>/<id>/rootfs       where callers name a directory as rootfs, as dockerd does
//	/run/isolate/.unfinished/<namespace>:<id>  a link to the record of a container that `delete` has not undone yet
//	/run/isolate/.notify/<hash>                a container's listener for seccomp notifications
//	/run/isolate/.ids/                         package pool's
//	/run/isolate/.runtime/                     package runtime's cache
//
// Names of containerd (pkg/identifiers) cannot begin with a dot, so these never
// collide.
package record
