// SPDX-License-Identifier: Apache-2.0

// Package ns names namespaces and says whose a user namespace is.
//
// It knows open files (/proc/PID/ns/*, nsfs) only. Whose process such a path is,
// is not its business: package proc opens them.
package ns
