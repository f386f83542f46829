// SPDX-License-Identifier: Apache-2.0

// Package task is the long-running side of the shim: containerd's task service
// for runc, decorated.
//
// Service embeds the upstream service. It overrides the calls that carry parts of a
// spec (Create, Exec, Update) and those that end a container or a process (Kill,
// Delete, Shutdown). Everything else (attach, pause, stats, OOM events, checkpoint,
// pods sharing a shim) stays upstream's.
//
// Three things live for different times. A creation lives as long as the call of
// Create: some 100 ms. A container lives until Delete, and has what Exec, Kill and
// Delete need. The record is on disk, and outlives the shim.
//
// Create is the heart. create_linux.go reads from top to bottom as the life of a
// container begins, and each step is in a file of its name: bundle, plan, lease,
// record, user namespace, clocks, mounts, spec, runtime, settle. What a step decides is
// in package plan. What a step needs undone is in the record before the step runs. So
// a failure at any step, and a shim that is killed at any step, end in the same
// clean-up.
//
// Errors become gRPC statuses only here, at the edge.
package task
