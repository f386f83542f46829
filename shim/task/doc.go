// SPDX-License-Identifier: Apache-2.0

// Package task is the long-running side of the shim: containerd's task service
// for runc, decorated.
//
// Service embeds the upstream service and overrides those calls that carry spec
// material (Create, Exec, Update), and the end;
// everything else (attach, pause, stats, OOM events, checkpoint, pods
// sharing a shim) stays upstream's. Create is the heart, and create_linux.go
// reads from top to bottom as the life of a container begins: bundle, options,
// plan, lease, stage, spec, record, runtime, settle. What a step needs undone is
// in the record before the step runs, so a failure at any step, and a shim that
// is killed at any step, end in the same clean-up.
//
// Errors become gRPC statuses only here, at the edge.
package task
