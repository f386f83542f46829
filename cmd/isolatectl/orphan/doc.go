// SPDX-License-Identifier: Apache-2.0

// Package orphan finds state of containers that nobody will undo any more, and undoes
// it. It is `isolatectl gc`.
//
// Nothing is left in the ordinary course of things: `delete` undoes a container, also
// one whose shim was killed, and the next start of any container finishes what `delete`
// could not (package ending). An orphan takes more: containerd's own state was removed
// by hand, or `delete` and its second try were both killed. Temporary files of killed
// shims are found as well (package temporary); the next `delete` would remove them.
//
// State is removed only if everything that could still need it is proved gone: see
// [Facts]. In doubt it stays, and the reason is told. The undoing itself is that of
// `delete` (ending.Undo), under the same lock.
//
// What does not belong here: ending anything that lives.
package orphan
