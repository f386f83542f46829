// SPDX-License-Identifier: Apache-2.0

// Isolatectl is the operator's command: what this host can do (check), what is
// configured and where (config), who has which ids (ids), what runs (ps), what is left
// of containers (gc), what a fleet watches (metrics); and to put isolate on a host and
// take it away (install, uninstall).
//
// Nothing needs isolatectl to run. It reads what the shims wrote and asks the
// packages that the shims use, so that it cannot know better than they do. Each
// command prints text for a human and, with --json, the same for a program.
//
// What does not belong here: any logic beyond choosing and printing. Package check
// finds out what a host lacks, install changes it, orphan finds what nobody undoes,
// metrics writes numbers, and host knows the daemons that run on it.
package main
