// SPDX-License-Identifier: Apache-2.0

// Package temporary knows where the temporary files of a shim are, for whoever cleans up
// after a shim that was killed.
//
// Upstream writes what an exec is to do to a file, and makes a directory for the socket of
// each terminal, both below XDG_RUNTIME_DIR, or else where all programs have their
// temporary files. It removes them when the runtime has read them. Those of a shim that
// was killed before that stay, and nothing tells whose they are. So each shim has a
// directory of its own while it makes some, which is named after the process and which
// `delete` removes when the process has ended.
//
// The environment is the only way to tell upstream where. Runtimes and their hooks must not
// see that: for them, XDG_RUNTIME_DIR is also where an unprivileged user's containers are.
package temporary
