// SPDX-License-Identifier: Apache-2.0

// Package escape tests what the root of an isolated container can not do, by
// trying: with every capability that the container has, with the default seccomp
// profile and without any, under runc and crun, and as a privileged container.
//
// A static program (package inside) runs in the container and reports each
// attempt. The table says what must become of it, error number included: an
// attempt that is not in the table fails the test, and so does a row that
// nothing was tried for. What is allowed is in the table with the reason why it
// may be. Beside that, the host is compared before and after: its sysctls and
// the like, its cgroups, mounts, files and processes.
//
// What software inside must be able to do is tested by package nested.
package escape
