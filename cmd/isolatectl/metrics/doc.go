// SPDX-License-Identifier: Apache-2.0

// Package metrics writes what a fleet watches of a host, in the text format of
// OpenMetrics. It is `isolatectl metrics`.
//
// There is no daemon: every number is read from the state that the shims write, when
// somebody asks. All are gauges, so that the text is also one of Prometheus' older
// format, which the textfile collector of its node exporter reads. docs/metrics.md lists
// the names; they do not change.
//
// What does not belong here: finding the numbers out.
package metrics
