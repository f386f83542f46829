// SPDX-License-Identifier: Apache-2.0

// Package runtime finds the OCI runtime that creates containers, and knows what
// it can do.
//
// Isolate works with the runtimes a distribution ships, unpatched, and these
// differ: crun 1.8 (Debian 12) refuses a spec that says 1.3, and has no
// `features` command, which the kubelet's view of a runtime is made from. So a
// runtime is asked what it is, once: two executions of 3 to 10 ms each would
// otherwise be on the path of every container. The answers are kept under
// /run/isolate/.runtime until the file changes or the host restarts; a wrapper
// script is a runtime of its own, and is asked again only when the script
// changes.
//
// A runtime is executed inside the shim, where containerd's reaper collects
// every child. Therefore an exit status may be missing, and what a runtime wrote
// decides whether it answered; all of it within [timeout].
//
// What does not belong here: running containers (containerd's runc packages do
// that) and choosing options for a container (package options).
package runtime
