// SPDX-License-Identifier: Apache-2.0

// Package ns identifies namespaces and tells which user owns a user namespace.
//
// It takes open files of nsfs (/proc/PID/ns/*) only. Package proc opens them, and makes
// sure that PID is still the same process.
package ns
