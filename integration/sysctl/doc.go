// SPDX-License-Identifier: Apache-2.0

// Package sysctl runs containers on machines whose sysctls leave no room for them:
// each is refused with a sentence that names the sysctl, or works with what there is
// and one warning.
//
// It is a package of its own because it is run in virtual machines, by
//
//	make test-vm
//
// since these sysctls are those of a whole machine, whatever the namespaces that the
// tests are in. It only runs where ISOLATE_TEST_ON_MACHINE=1 says that the machine is
// thrown away afterwards.
package sysctl
