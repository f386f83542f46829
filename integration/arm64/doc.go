// SPDX-License-Identifier: Apache-2.0

// Package arm64 builds and checks all programs for arm64, and runs the tests of
// single packages there, on a processor that is emulated program by program.
//
// That finds what differs between processors: the numbers of system calls, the
// names of architectures in seccomp profiles, sizes and orders of bytes. It is not
// a machine with another kernel: system calls are those of this machine's kernel,
// translated, and those that the emulator does not know are refused by it. Tests
// that are about such calls are declared in unable, with the reason, and are all that
// is left out.
package arm64
