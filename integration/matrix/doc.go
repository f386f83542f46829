// SPDX-License-Identifier: Apache-2.0

// Package matrix runs the integration tests that depend on the kernel, its
// control groups and the machine's process 1 in virtual machines, by
//
//	make test-vm
//	make test-vm KERNEL=6.1
//
// They are the same tests that run on the machine itself, a part of them, since
// everything takes about ten times as long there. The legs are data (see legs):
// which kernel, which version of control groups, which process 1, which tests.
// Each leg is one machine that boots once, and runs several test programs.
//
// Nothing may be skipped there but what declares, by a requirement, that the
// kernel is too old for it; package rig fails a test that is skipped on a kernel
// which should do. So a leg proves both what a kernel can and what it cannot.
// A suite that fails is run once more in a new machine, and the report says so.
//
// What does not belong here: how a machine is made, which is package vm.
package matrix
