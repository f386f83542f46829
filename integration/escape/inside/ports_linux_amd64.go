// SPDX-License-Identifier: Apache-2.0

package main

import "golang.org/x/sys/unix"

// Ports of the processor's own; others have none.
func ioperm(from, count, on int) error { return unix.Ioperm(from, count, on) }
func iopl(level int) error             { return unix.Iopl(level) }
