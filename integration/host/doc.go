// SPDX-License-Identifier: Apache-2.0

// Package host runs containers on hosts that are set up in ways that administrators
// choose: containerd's directories on other file systems and behind other mount
// flags, other snapshotters, mounts that do not propagate, an /etc that nobody can
// write to, a root without some capability.
//
// On each of them an ordinary container either works, and leaves nothing, or is
// refused with a sentence that names the object, the cause and what to do.
//
// Kernels are the matter of package integration, which make test-vm runs under
// several; sysctls are the matter of package sysctl.
package host
