// SPDX-License-Identifier: Apache-2.0

// Package spec decides what an OCI runtime spec becomes under isolate, and
// nothing else: every function here is a pure function over data.
//
// The flow is Parse -> Decide -> (the shim leases ids and stages mounts) ->
// Apply -> Document.JSON. Decide answers who maps the ids; Apply runs the
// pipeline, whose steps are listed in one place and in order. Process gives an
// exec'd process the same treatment as the init process, because containerd
// sends its own, unedited copy of the process with every Exec.
//
// What does not belong here: system calls, files, configuration parsing and
// options of containerd. Facts about the host arrive as values (Facts,
// Policy), so that every case can be a row of a table.
//
// Fields of the spec that this version of runtime-spec does not know are kept:
// Document edits the typed copy and merges only the difference (RFC 7396) into
// the original bytes.
package spec
