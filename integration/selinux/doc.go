// SPDX-License-Identifier: Apache-2.0

// Package selinux tests which SELinux labels containers get from a kernel that has
// it on, with policies that have the types for nesting or lack them.
//
// It is a package of its own because it is run in a virtual machine, by
//
//	make test-vm
//
// with selinux=1 security=selinux enforcing=0 on the kernel's command line. The
// policy is the smallest one that has labels, and denies nothing: what the types of
// container-selinux permit is not tested. The tests load it into the machine's
// kernel, from which no policy can be unloaded, and fail where there is one.
package selinux
