// SPDX-License-Identifier: Apache-2.0

// Package apparmor tests containers where AppArmor is on: which profile they get,
// what isolate-default keeps from them, that containers run inside of them under
// it, and what is said where containerd itself is confined.
//
// It is a package of its own because it is run in a virtual machine, by
//
//	make test-vm
//
// with apparmor=1 security=apparmor audit=1 on the kernel's command line. The tests
// load profiles into the machine's kernel and unload them, which no namespace keeps
// from the machine; they fail where one of those names is loaded already.
//
// Denials that nobody foresaw are found in the kernel's log: those that the profile
// names are not logged, so that every other one under it is an error.
package apparmor
