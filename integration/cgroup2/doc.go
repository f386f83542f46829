// SPDX-License-Identifier: Apache-2.0

// Package cgroup2 tests a container's control groups where all controllers are
// on version 2: what its root owns, what it can limit inside and what it cannot
// raise, and which device nodes it can open.
//
// It is a package of its own because it is run in a virtual machine, by
//
//	make test-vm
//
// once with containerd in a rig and the cgroupfs driver, and once on a machine
// that systemd has started with the systemd driver, which needs that systemd.
// On a machine with version 1 all tests are skipped.
//
// The image is tiny and the programs in it are few, as everything takes ten
// times as long there. What is the same with both versions is tested by package
// integration.
package cgroup2
