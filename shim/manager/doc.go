// SPDX-License-Identifier: Apache-2.0

// Package manager is the short-lived side of the shim: the processes that
// containerd starts for `start`, `delete` and `-info`, and that end at once.
//
// It decorates containerd's own manager for runc (shim.Shim); nothing of it is
// copied. Nothing that concerns one container may happen in `start`, because
// containerd starts one shim for a pod and speaks to it directly for the pod's
// later containers: that belongs to package task. `delete` must work when the
// shim is dead, so it uses the record alone.
package manager
